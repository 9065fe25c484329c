package workload

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestMain(m *testing.M) {
	RegisterChildren()
	redistest.RunIfChild()
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(redistest.Redialer))
}
