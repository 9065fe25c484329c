package readthrough

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestMain(m *testing.M) {
	redistest.RunIfChild()
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(redistest.Redialer))
}
