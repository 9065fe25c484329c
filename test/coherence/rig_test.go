// Package coherence checks the first promise of the cache from outside: what several processes saw
// of it while they read and wrote, and were stopped in the middle of it, can be explained by a
// model. That the check would find a violation is checked as well, with the library's rules
// switched off one by one.
package coherence

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestMain(m *testing.M) {
	redistest.RunIfChild()
	redistest.Parallel(8)
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(redistest.Redialer))
}
