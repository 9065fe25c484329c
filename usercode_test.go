package readthrough_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

// outcome is how a call ended.
type outcome struct {
	value    string
	err      error
	panicked any
	exited   bool // the goroutine of its caller was ended
}

// outcomeOf makes a call on a goroutine of its own. In a bubble a call that never ends fails the
// test.
func outcomeOf(call func() (string, error)) outcome {
	ended := make(chan outcome, 1)
	go func() { // ends with call
		o := outcome{exited: true}
		defer func() { ended <- o }()
		defer func() {
			if o.panicked = recover(); o.panicked != nil {
				o.exited = false
			}
		}()
		o.value, o.err = call()
		o.exited = false
	}()
	return <-ended
}

// harms are what the user's code can do instead of returning.
var harms = map[string]func(){
	"panic":  func() { panic("harm") },
	"Goexit": runtime.Goexit,
}

// harmfulCodec is JSON until it does harm.
type harmfulCodec struct{ marshal, unmarshal func() }

func (c harmfulCodec) Marshal(v any) ([]byte, error) {
	c.marshal()
	return json.Marshal(v)
}

func (c harmfulCodec) Unmarshal(b []byte, v any) error {
	c.unmarshal()
	return json.Unmarshal(b, v)
}

// TestUserCode_HarmsItsOwnCallersOnly has each function of the user's do harm while row 1 is loaded,
// and another caller get row 2.
func TestUserCode_HarmsItsOwnCallersOnly(t *testing.T) {
	load := func(context.Context, int) (string, error) { return "v", nil }
	for name, opts := range map[string]func(harm func()) (readthrough.Loader[int, string], []readthrough.Option){
		"loader": func(harm func()) (readthrough.Loader[int, string], []readthrough.Option) {
			return func(context.Context, int) (string, error) { harm(); return "v", nil }, nil
		},
		"batch loader": func(harm func()) (readthrough.Loader[int, string], []readthrough.Option) {
			return load, []readthrough.Option{readthrough.WithGather(time.Millisecond, 1), readthrough.WithBatchLoader(
				func(_ context.Context, ids []int) (map[int]string, error) {
					harm()
					return map[int]string{ids[0]: "v"}, nil
				})}
		},
		"WithTTLFor": func(harm func()) (readthrough.Loader[int, string], []readthrough.Option) {
			return load, []readthrough.Option{readthrough.WithTTLFor(func(string) time.Duration { harm(); return time.Minute })}
		},
		"Marshal": func(harm func()) (readthrough.Loader[int, string], []readthrough.Option) {
			return load, []readthrough.Option{readthrough.WithCodec(harmfulCodec{harm, func() {}})}
		},
		"Is": func(harm func()) (readthrough.Loader[int, string], []readthrough.Option) {
			return func(context.Context, int) (string, error) { return "v", harmfulError(harm) },
				[]readthrough.Option{readthrough.WithNotFound(time.Minute, errDown)}
		},
	} {
		for how, harm := range harms {
			t.Run(name+", "+how, func(t *testing.T) {
				inBubble(t, func(t *testing.T, b *bubble) {
					var harmful atomic.Bool
					harmful.Store(true)
					loader, opts := opts(func() {
						if harmful.Load() {
							harm()
						}
					})
					rt := wrapper(t, b.cache(t), loader, append(opts, readthrough.WithLoadLimit(1))...)
					for read, call := range map[string]func() (string, error){
						"Get":     func() (string, error) { return rt.Get(t.Context(), 1) },
						"Refresh": func() (string, error) { return rt.Refresh(t.Context(), 1) },
						"GetMany": func() (string, error) {
							results, err := rt.GetMany(t.Context(), []int{1, 2, 3})
							if err != nil {
								return "", err
							}
							return results[0].Value, results[0].Err
						},
					} {
						o := outcomeOf(call)
						require.False(t, o.exited, "%s: %+v", read, o)
						switch {
						case name == "Is" && how == "panic":
							require.Equal(t, "v", o.value)
							require.IsType(t, harmfulError(nil), o.err, "the very error")
						case name == "Marshal" && how == "panic":
							require.Equal(t, outcome{value: "v"}, o, "it cannot be stored")
						case how == "panic":
							require.IsType(t, &readthrough.PanicError{}, o.panicked)
						default:
							require.ErrorContains(t, o.err, "Goexit")
							require.Nil(t, o.panicked)
						}
					}
					synctest.Wait()
					require.Empty(t, leasesIn(b.redis))

					harmful.Store(false)
					o := outcomeOf(func() (string, error) { return rt.Get(t.Context(), 2) })
					require.Equal(t, "v", o.value, "no slot is lost")
					require.False(t, o.exited)
				})
			})
		}
	}
}

// harmfulError is an error that does harm when it is compared, or asked for its text.
type harmfulError func()

func (e harmfulError) Error() string   { e(); return "harmful" }
func (e harmfulError) Is(error) bool   { e(); return false }
func (e harmfulError) As(any) bool     { e(); return false }
func (e harmfulError) Unwrap() []error { e(); return nil }

// repoError is what a repository may have for its errors. All methods dereference.
type repoError struct {
	text string
	err  error
}

func (e *repoError) Error() string { return e.text }
func (e *repoError) Unwrap() error { return e.err }

// A loader that returns a nil pointer as an error has an error, and no more than that.
func TestUserCode_ReturnsTypedNilErrorAsItIs(t *testing.T) {
	failing := func() error { var e *repoError; return e }
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	for name, opts := range map[string][]readthrough.Option{
		"plain":     nil,
		"not found": {readthrough.WithNotFound(time.Minute, errDown)},
		"batch": {readthrough.WithGather(time.Millisecond, 1), readthrough.WithNotFound(time.Minute, errDown),
			readthrough.WithBatchLoader(func(context.Context, []int) (map[int]string, error) { return nil, failing() })},
		"timeout": {readthrough.WithLoadTimeout(time.Millisecond)},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				cache := b.cache(t, readthrough.WithLogger(log))
				rt := wrapper(t, cache, func(context.Context, int) (string, error) { return "", failing() }, opts...)
				o := outcomeOf(func() (string, error) { return rt.Get(t.Context(), 1) })
				require.True(t, o.err == failing(), "%+v", o) //nolint:testifylint // its text cannot be asked for
				results, err := rt.GetMany(t.Context(), []int{1, 2})
				require.NoError(t, err)
				require.True(t, results[0].Err == failing() && results[1].Err == failing())

				require.NoError(t, rt.Set(t.Context(), 1, "stale"))
				require.NoError(t, rt.Expire(t.Context(), 1))
				v, err := rt.Get(t.Context(), 1)
				require.NoError(t, err)
				require.Equal(t, "stale", v)
				pass(time.Second) // the refresh has failed
				require.EqualValues(t, 4, rt.Stats().LoadErrors)
			})
		})
	}
}

func TestUserCode_ReturnsPanicErrorAsError(t *testing.T) {
	cache, _ := newCache(t)
	inner := wrapper(t, cache, func(context.Context, int) (string, error) { panic("inner") })
	outer := readthrough.Must(readthrough.New(cache, "outer", func(ctx context.Context, id int) (_ string, err error) {
		defer func() { err, _ = recover().(error) }()
		return inner.Get(ctx, id)
	}, readthrough.Int))
	for range 2 {
		o := outcomeOf(func() (string, error) { return outer.Get(t.Context(), 1) })
		require.Nil(t, o.panicked)
		var p *readthrough.PanicError
		require.ErrorAs(t, o.err, &p)
		require.Equal(t, "inner", p.Value)
	}
}

// A codec that does harm to what is in Redis makes that a miss, or ends its caller; it keeps nobody
// waiting.
func TestUserCode_MayNotDecode(t *testing.T) {
	for how, harm := range harms {
		t.Run(how, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				var harmful atomic.Bool
				codec := harmfulCodec{func() {}, func() {
					if harmful.Load() {
						harm()
					}
				}}
				loading, goOn := make(chan bool, 10), make(chan bool)
				rt := wrapper(t, b.cache(t), func(context.Context, int) (string, error) {
					loading <- true
					<-goOn
					return "mine", nil
				}, readthrough.WithCodec(codec))
				get := func() (string, error) { return rt.Get(t.Context(), 1) }

				// Another process stores the entry while this one waits for its lease.
				require.NoError(t, b.redis.Set("{row:1}:lease", "another's"))
				waits := make(chan outcome)
				go func() { waits <- outcomeOf(get) }()
				synctest.Wait()
				other := wrapper(t, b.cache(t), constant("other's"), readthrough.WithCodec(harmfulCodec{func() {}, func() {}}))
				harmful.Store(true)
				require.NoError(t, other.Set(t.Context(), 1, "other's"))
				<-loading // it could not be decoded
				close(goOn)
				require.Equal(t, outcome{value: "mine"}, <-waits)

				for range 2 {
					o := outcomeOf(get)
					require.Equal(t, how == "Goexit", o.exited, "%+v", o)
					o = outcomeOf(func() (string, error) {
						results, err := rt.GetMany(t.Context(), []int{1, 1})
						if err != nil {
							return "", err
						}
						return results[1].Value, results[1].Err
					})
					require.Equal(t, how == "Goexit", o.exited, "%+v", o)
					require.Nil(t, o.panicked)
				}
			})
		})
	}
}

// observerFunc is an Observer made of a function.
type observerFunc func(context.Context, readthrough.Event)

func (f observerFunc) Observe(ctx context.Context, e readthrough.Event) { f(ctx, e) }

// logHandler is a slog.Handler made of a function.
type logHandler struct {
	slog.Handler
	handle func(slog.Record)
}

func (h logHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h logHandler) Handle(_ context.Context, r slog.Record) error { h.handle(r); return nil }

// TestUserCode_MayFailToObserve has an observer do harm at each event there is.
func TestUserCode_MayFailToObserve(t *testing.T) {
	for how, harm := range harms {
		for kind := readthrough.EventHit; kind.String() != "unknown"; kind++ {
			t.Run(kind.String()+", "+how, func(t *testing.T) {
				inBubble(t, func(t *testing.T, b *bubble) {
					var hit atomic.Int64
					var others atomic.Int64
					cache := b.cache(t, readthrough.WithBreaker(1, time.Second),
						readthrough.WithObserver(observerFunc(func(_ context.Context, e readthrough.Event) {
							if e.Kind == kind {
								hit.Add(1)
								harm()
							}
						})),
						readthrough.WithLogger(slog.New(logHandler{handle: func(r slog.Record) {
							if r.Message == "readthrough: "+kind.String() {
								harm()
							}
						}})),
						readthrough.WithObserver(observerFunc(func(_ context.Context, e readthrough.Event) {
							if e.Kind == kind {
								others.Add(1)
							}
						})))
					rehearse(t, b, rehearsal(cache))
					require.Equal(t, hit.Load(), others.Load(), "the others are told")
					switch kind {
					case readthrough.EventDroppedInvalidation, readthrough.EventShared, readthrough.EventSkipped, readthrough.EventFinding,
						readthrough.EventLocalHit, readthrough.EventLocalLost, readthrough.EventLocalReady, readthrough.EventFence, readthrough.EventFenceWaited:
					default:
						require.Positive(t, hit.Load())
					}
				})
			})
		}
	}
}

var errNone = errors.New("none")

// rehearsal returns a wrapper whose rows are not there (below 0), fail (0) or are too large (9).
func rehearsal(cache *readthrough.Cache) *readthrough.ReadThrough[int, string] {
	return readthrough.Must(readthrough.New(cache, "row", func(_ context.Context, id int) (string, error) {
		time.Sleep(time.Second)
		switch {
		case id < 0:
			return "", errNone
		case id == 0:
			return "", errDown
		case id == 9:
			return string(make([]byte, 100)), nil
		}
		return "v", nil
	}, readthrough.Int, readthrough.WithNotFound(time.Minute, errNone), readthrough.WithMaxEntryBytes(50), readthrough.WithAudit(1)))
}

// rehearse has almost each kind of event happen, and wants every call to end: with its goroutine, or
// well.
func rehearse(t *testing.T, b *bubble, rt *readthrough.ReadThrough[int, string]) {
	t.Helper()
	ctx := context.Background() // without an end: who waits in vain waits for ever
	end := func(ignored error, call func() error) {
		t.Helper()
		o := outcomeOf(func() (string, error) { return "", call() })
		require.Nil(t, o.panicked)
		require.NoError(t, ignore(o.err, ignored))
	}
	get := func(id int) func() error {
		return func() error { _, err := rt.Get(ctx, id); return err }
	}
	end(nil, get(1))
	end(nil, get(1))
	end(errNone, get(-1))
	end(errNone, get(-1))
	end(errDown, get(0))
	end(nil, get(9))
	require.NoError(t, b.redis.Set("row:8", "corrupt"))
	end(nil, get(8))
	end(nil, func() error { return rt.Set(ctx, 2, "v") })
	end(nil, func() error { return rt.Expire(ctx, 2) })
	end(nil, get(2))
	end(nil, func() error { return rt.Set(ctx, 10, "forgotten") })
	end(nil, get(10))
	pass(3 * time.Second)
	together := make(chan bool)
	for range 2 {
		go func() { end(nil, get(3)); together <- true }()
	}
	<-together
	<-together
	refused := make(chan bool)
	go func() { end(nil, get(4)); refused <- true }()
	time.Sleep(time.Second / 2)
	end(nil, func() error { return rt.Invalidate(ctx, 4) })
	<-refused
	end(nil, func() error { _, err := rt.GetMany(ctx, []int{1, 2, 3, 4, 5, 6, 7}); return err })

	b.redis.SetError("ERR unknown command")
	end(nil, func() error { _ = rt.Invalidate(ctx, 4); return nil })
	b.redis.SetError("LOADING Redis is loading the dataset in memory")
	end(nil, get(1))
	end(nil, get(1))
	b.redis.SetError("")
	pass(2 * time.Second)
	end(nil, get(1))
	synctest.Wait()
}

// TestObserver_MayCallEverything has an observer call each method at each event there is, in the
// midst of its own critical section, into which the events of that call want to come too.
func TestObserver_MayCallEverything(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, call := range map[string]func(c *readthrough.Cache, rt *readthrough.ReadThrough[int, string], key string){
		"Get": func(_ *readthrough.Cache, rt *readthrough.ReadThrough[int, string], _ string) { _, _ = rt.Get(ctx, 1) },
		"GetMany": func(_ *readthrough.Cache, rt *readthrough.ReadThrough[int, string], _ string) {
			_, _ = rt.GetMany(ctx, upTo(-1, 9))
		},
		"Peek": func(_ *readthrough.Cache, rt *readthrough.ReadThrough[int, string], _ string) { _, _ = rt.Peek(ctx, 1) },
		"Refresh": func(_ *readthrough.Cache, rt *readthrough.ReadThrough[int, string], _ string) {
			_, _ = rt.Refresh(ctx, 1)
		},
		"Set": func(_ *readthrough.Cache, rt *readthrough.ReadThrough[int, string], _ string) {
			_ = rt.Set(ctx, 1, "w")
		},
		"Invalidate": func(_ *readthrough.Cache, rt *readthrough.ReadThrough[int, string], _ string) {
			_ = rt.Invalidate(ctx, 1)
		},
		"Expire": func(_ *readthrough.Cache, rt *readthrough.ReadThrough[int, string], _ string) { _ = rt.Expire(ctx, 1) },
		"Delete": func(c *readthrough.Cache, _ *readthrough.ReadThrough[int, string], key string) {
			_ = c.Delete(ctx, key)
		},
		"raw": func(c *readthrough.Cache, _ *readthrough.ReadThrough[int, string], key string) {
			_, _ = readthrough.Get[string](ctx, c, key)
		},
		"Stats": func(c *readthrough.Cache, _ *readthrough.ReadThrough[int, string], _ string) { c.Stats() },
	} {
		t.Run(name, func(t *testing.T) {
			for kind := readthrough.EventHit; kind.String() != "unknown"; kind++ {
				inBubble(t, func(t *testing.T, b *bubble) {
					var cache *readthrough.Cache
					var rt *readthrough.ReadThrough[int, string]
					var times atomic.Int64
					lock := make(chan bool, 1)
					cache = b.cache(t, readthrough.WithBreaker(1, time.Second),
						readthrough.WithObserver(observerFunc(func(_ context.Context, e readthrough.Event) {
							lock <- true
							defer func() { <-lock }()
							if e.Kind == kind && times.Add(1) < 5 {
								call(cache, rt, e.Key)
							}
						})))
					rt = rehearsal(cache)
					rehearse(t, b, rt)
				})
			}
		})
	}
}

// Observers that hang hold up nobody for ever, and take no more than so many goroutines.
func TestObserver_IsNotWaitedForWhenItHangs(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		var hung atomic.Int64
		goOn := make(chan bool)
		hang := observerFunc(func(_ context.Context, e readthrough.Event) {
			if e.Kind == readthrough.EventFinding {
				return // of NewCache, about the client
			}
			hung.Add(1)
			<-goOn
		})
		rt := b.process(t, &database{version: 1}, readthrough.WithObserver(hang))
		first := asking(t.Context(), rt, 1) // is told its miss
		got := ask(t.Context(), rt, 2)
		require.NoError(t, got.err)
		require.Equal(t, 100*time.Millisecond, got.took, "a hanging observer is waited for once")
		for id := range 1000 {
			got := ask(t.Context(), rt, id+3)
			require.NoError(t, got.err)
			require.Zero(t, got.took)
		}
		require.EqualValues(t, 1000, hung.Load(), "and no more goroutines hang in it than that")
		close(goOn)
		require.NoError(t, (<-first).err)
	})
}
