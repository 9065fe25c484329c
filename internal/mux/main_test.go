package mux_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(redistest.Redialer))
}
