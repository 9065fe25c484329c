package lease_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/lease"
)

func TestAcquire_ReturnsLeaseOrEntry(t *testing.T) {
	binary := "\x00\xff entry \r\n"
	onEach(t, func(t *testing.T, r *rig) {
		for name, row := range map[string]struct {
			entry, holder *string
			want          lease.Acquired
		}{
			"nobody holds it, no entry":                                  {nil, nil, lease.Acquired{Held: true, Token: "token"}},
			"nobody holds it, an entry":                                  {&binary, nil, lease.Acquired{Held: true, Token: "token", Found: true, Entry: []byte(binary)}},
			"nobody holds it, an empty entry":                            {new(string), nil, lease.Acquired{Held: true, Token: "token", Found: true, Entry: []byte{}}},
			"another holds it, no entry":                                 {nil, new("another"), lease.Acquired{Holder: "another"}},
			"another holds it, an entry":                                 {&binary, new("another"), lease.Acquired{Holder: "another", Found: true, Entry: []byte(binary)}},
			"another holds it, whose token begins alike":                 {nil, new("tokens.1"), lease.Acquired{Holder: "tokens.1"}},
			"oneself holds it: the answer to the first attempt was lost": {nil, new("token.1"), lease.Acquired{Held: true, Token: "token"}},
		} {
			t.Run(name, func(t *testing.T) {
				r.reset(t)
				if row.entry != nil {
					r.put(t, key, *row.entry, 0)
				}
				if row.holder != nil {
					r.put(t, own, *row.holder, ttl)
				}
				got, err := r.Acquire(r.ctx(), key, "token", ttl)
				require.NoError(t, err)
				require.Equal(t, row.want, ofLoad(t, r.redis, own, got))
				holder := got.Token
				if row.holder != nil {
					holder = *row.holder
				}
				r.requireKey(t, own, holder, ttl)
				require.Len(t, r.wire.sent, 1, "one round trip")
			})
		}
	})
}

func TestAcquire_TakesWhatIsNoStringForNoEntry(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		require.NoError(t, r.redis.LPush(r.ctx(), key, "a", "b").Err())
		got, err := r.Acquire(r.ctx(), key, "token", ttl)
		require.NoError(t, err)
		require.Equal(t, lease.Acquired{Held: true, Token: "token"}, ofLoad(t, r.redis, own, got))

		kept, err := r.Fill(r.ctx(), key, got.Token, []byte("entry"), ttl)
		require.NoError(t, err)
		require.True(t, kept, "the fill overwrites it")
		r.requireKey(t, key, "entry", ttl)
	})
}

func TestAcquire_GetsLeaseThatExpired(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		old, err := r.Acquire(r.ctx(), key, "old", ttl)
		require.NoError(t, err)
		require.True(t, old.Held)
		require.NoError(t, r.redis.PExpire(r.ctx(), own, -time.Second).Err())
		got, err := r.Acquire(r.ctx(), key, "new", ttl)
		require.NoError(t, err)
		require.True(t, got.Held)

		kept, err := r.Fill(r.ctx(), key, old.Token, []byte("entry"), ttl)
		require.NoError(t, err)
		require.False(t, kept)
		r.requireGone(t, key)
	})
}

func TestFill_NeedsItsOwnLease(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		for name, row := range map[string]struct {
			holder string
			ttl    time.Duration
			kept   bool
		}{
			"of the holder":                    {"token", ttl, true},
			"of the holder, without an expiry": {"token", 0, true},
			"of another":                       {"another", ttl, false},
			"of nobody: it was invalidated":    {"", ttl, false},
		} {
			t.Run(name, func(t *testing.T) {
				r.reset(t)
				r.put(t, key, "before", 2*ttl)
				if row.holder != "" {
					r.put(t, own, row.holder, ttl)
				}
				kept, err := r.Fill(r.ctx(), key, "token", []byte("\x00entry\xff"), row.ttl)
				require.NoError(t, err)
				require.Equal(t, row.kept, kept)
				if row.kept {
					r.requireKey(t, key, "\x00entry\xff", row.ttl)
					r.requireGone(t, own)
					return
				}
				r.requireKey(t, key, "before", 2*ttl)
				if row.holder != "" {
					r.requireKey(t, own, row.holder, ttl)
				}
			})
		}
	})
}

func TestRenew_ExtendsOnlyItsOwnLease(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		for name, row := range map[string]struct {
			holder string
			kept   bool
		}{
			"own":        {"token", true},
			"another's":  {"another", false},
			"nobody's":   {"", false},
			"a similar":  {"tokens", false},
			"other case": {"TOKEN", false},
		} {
			t.Run(name, func(t *testing.T) {
				r.reset(t)
				if row.holder != "" {
					r.put(t, own, row.holder, ttl)
				}
				kept, err := r.Renew(r.ctx(), key, "token", 3*ttl)
				require.NoError(t, err)
				require.Equal(t, row.kept, kept)
				switch {
				case row.kept:
					r.requireKey(t, own, row.holder, 3*ttl)
				case row.holder == "":
					r.requireGone(t, own)
				default:
					r.requireKey(t, own, row.holder, ttl)
				}
			})
		}
	})
}

// A load whose acquire failed does not know which of its attempts has got the lease, if any has.
func TestRelease_GivesBackWhatAnyAttemptOfItsLoadHasGot(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		for name, row := range map[string]struct {
			token, holder string
			gone, kept    bool
		}{
			"own":                                 {"token.1", "token.1", true, true},
			"another's":                           {"token.1", "another.1", false, false},
			"another's, whose token begins alike": {"token.1", "tokens.1", false, false},
			"another's, whose token is shorter":   {"token.1", "toke.1", false, false},
			"nobody's":                            {"token.1", "", true, false},
			"of another attempt":                  {"token.1", "token.2", true, false},
			"of one attempt or none: that is not known":    {"token", "token.1", true, false},
			"another's, and of one's own nothing is known": {"token", "another.1", false, false},
			"a similar, and of one's own nothing is known": {"token", "tokens.1", false, false},
			"nobody's, and of one's own nothing is known":  {"token", "", true, false},
		} {
			for way, s := range map[string]single{"script": r.single, "transaction": inTransactions(r.redis)} {
				t.Run(name+", by "+way, func(t *testing.T) {
					r.reset(t)
					r.put(t, key, "entry", ttl)
					if row.holder != "" {
						r.put(t, own, row.holder, ttl)
					}
					kept, err := s.Release(r.ctx(), key, row.token)
					require.NoError(t, err)
					require.Equal(t, row.kept, kept)
					r.requireKey(t, key, "entry", ttl)
					if row.gone {
						r.requireGone(t, own)
					} else {
						r.requireKey(t, own, row.holder, ttl)
					}
				})
			}
		}
	})
}

func TestRelease_TellsThoseWhoWaitThatItsLoadHasFailed(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		const told = "{app:user:1}:failed"
		for name, row := range map[string]struct {
			holder, waitsFor string // when it is asked again
			failed           bool
		}{
			"another holds it, and it was waited for":         {"another", "token", true},
			"another holds it, but it was not waited for":     {"another", "", false},
			"another attempt of that load was waited for":     {"another", "token.2", true},
			"another holds it, and yet another is waited for": {"another", "yet another", false},
			"nobody holds it: it is one's own now":            {"", "token", false},
		} {
			t.Run(name, func(t *testing.T) {
				r.reset(t)
				r.put(t, own, "token", ttl)
				o := r.Settle(r.ctx(), []lease.Settlement{{Key: key, Token: "token", Failed: true}})[0]
				require.Equal(t, lease.Outcome{Kept: true}, o)
				require.Len(t, r.wire.sent, 1, "one round trip")
				r.requireKey(t, told, "token", 200*time.Millisecond)
				r.requireGone(t, own)

				if row.holder != "" {
					r.put(t, own, row.holder, ttl)
				}
				got, err := r.ask(r.ctx(), lease.Request{Key: key, Token: "mine", TTL: ttl, WaitsFor: row.waitsFor})
				require.NoError(t, err)
				want := lease.Acquired{Holder: row.holder, Failed: row.failed}
				if row.holder == "" {
					want = lease.Acquired{Held: true, Token: "mine"}
				}
				require.Equal(t, want, ofLoad(t, r.redis, own, got))
				require.Len(t, r.wire.sent, 2, "one round trip")
			})
		}
		r.reset(t)
		r.put(t, own, "token", ttl)
		_, err := r.Release(r.ctx(), key, "token")
		require.NoError(t, err)
		r.requireGone(t, told)
	})
}

func TestSteal_TakesLeaseWhoeverHoldsIt(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		for name, holder := range map[string]string{"another": "another", "nobody": ""} {
			t.Run(name, func(t *testing.T) {
				r.reset(t)
				if holder != "" {
					r.put(t, own, holder, 0)
				}
				got, err := r.Steal(r.ctx(), key, "thief", ttl)
				require.NoError(t, err)
				require.Equal(t, lease.Acquired{Held: true, Token: "thief"}, ofLoad(t, r.redis, own, got))
				r.requireKey(t, own, got.Token, ttl)
				require.Zero(t, r.wire.forced)

				kept, err := r.Fill(r.ctx(), key, "another", []byte("older"), ttl)
				require.NoError(t, err)
				require.False(t, kept)
				kept, err = r.Fill(r.ctx(), key, got.Token, []byte("newer"), ttl)
				require.NoError(t, err)
				require.True(t, kept)
				r.requireKey(t, key, "newer", ttl)
			})
		}
	})
}

func TestSet_StoresAndDeletesLease(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		for name, row := range map[string]struct {
			holder string
			ttl    time.Duration
		}{
			"somebody loads":                    {"token", ttl},
			"nobody loads":                      {"", ttl},
			"somebody loads, without an expiry": {"token", 0},
		} {
			t.Run(name, func(t *testing.T) {
				r.reset(t)
				r.put(t, key, "before", 2*ttl)
				if row.holder != "" {
					r.put(t, own, row.holder, ttl)
				}
				require.NoError(t, r.Set(r.ctx(), key, []byte("set"), row.ttl))
				r.requireKey(t, key, "set", row.ttl)
				r.requireGone(t, own)
				require.Equal(t, len(r.wire.sent), r.wire.forced, "it is tried even while Redis is thought to be down")

				kept, err := r.Fill(r.ctx(), key, "token", []byte("older"), ttl)
				require.NoError(t, err)
				require.False(t, kept)
				r.requireKey(t, key, "set", row.ttl)
			})
		}
	})
}

func TestSet_StoresUnderKeysThatHaveNoLease(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		for _, ttl := range []time.Duration{ttl, 0} {
			require.NoError(t, r.Set(r.ctx(), "a{b}c", []byte("set"), ttl))
			r.requireKey(t, "a{b}c", "set", ttl)
			require.Len(t, r.wire.sent[len(r.wire.sent)-1], 1, "it has no lease to delete")
		}
		require.Equal(t, len(r.wire.sent), r.wire.forced)
	})
}

// The first call of a Store takes no trip more, whether Redis knows the script or not: it is sent by its text.
func TestScripts_AreTaughtAgainToRedisThatForgotThem(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		for name, run := range map[string]func(*rig) (bool, error){
			"fill":    func(r *rig) (bool, error) { return r.Fill(r.ctx(), key, "token", []byte("entry"), ttl) },
			"renew":   func(r *rig) (bool, error) { return r.Renew(r.ctx(), key, "token", ttl) },
			"release": func(r *rig) (bool, error) { return r.Release(r.ctx(), key, "token") },
			"expire": func(r *rig) (bool, error) {
				_, err := r.Expire(r.ctx(), time.Now(), ttl, key)
				return true, err
			},
		} {
			t.Run(name, func(t *testing.T) {
				r.reset(t)
				trips := func() int {
					r.put(t, own, "token", ttl)
					before := len(r.wire.sent)
					kept, err := run(r)
					require.NoError(t, err)
					require.True(t, kept)
					return len(r.wire.sent) - before
				}
				require.Equal(t, 1, trips(), "sent by its text")
				require.Equal(t, "eval", r.wire.last()[0])
				require.Equal(t, 1, trips(), "known by its hash")
				require.Equal(t, "evalsha", r.wire.last()[0])
				require.NoError(t, r.redis.ScriptFlush(r.ctx()).Err())
				require.Equal(t, 2, trips(), "forgotten")
				require.Equal(t, 1, trips())
			})
		}
	})
}

func TestAcquire_WritesTokenOfItsOwnForEachAttempt(t *testing.T) {
	for _, steal := range []bool{false, true} {
		wire := &direct{}
		_, err := newSingle(wire).ask(t.Context(), lease.Request{Key: key, Token: "token", TTL: ttl, Steal: steal})
		require.NoError(t, err)
		seen := make(map[string]bool)
		for range 100 {
			token := nextAttempt(t, wire.sent[0][0])
			seen[token] = true
			require.Equal(t, "token", loadOf(token))
		}
		require.Len(t, seen, 100)
	}
}

// What an attempt has got while its answer was lost is held, under the token of that attempt.
func TestAcquire_IsHeldUnderTokenOfAttemptThatGotIt(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		for name, row := range map[string]struct {
			steal bool
			lost  int  // answers
			ends  bool // the lease of an attempt, before the next
			got   int  // the attempt whose lease it is, counted from one
		}{
			"sent once":                         {false, 0, false, 1},
			"an answer is lost":                 {false, 1, false, 1},
			"three answers are lost":            {false, 3, false, 1},
			"an answer and the lease are lost":  {false, 1, true, 2},
			"stolen":                            {true, 0, false, 1},
			"stolen, an answer is lost":         {true, 1, false, 2},
			"stolen, answer and lease are lost": {true, 1, true, 2},
			"three answers and leases are lost": {false, 3, true, 4},
			"stolen, three answers are lost":    {true, 3, false, 4},
		} {
			t.Run(name, func(t *testing.T) {
				r.reset(t)
				var holders []string // after each attempt
				r.wire.resends = func() bool {
					holders = append(holders, r.redis.Get(r.ctx(), own).Val())
					again := len(holders) <= row.lost
					if again && row.ends {
						require.NoError(t, r.redis.Del(r.ctx(), own).Err())
					}
					return again
				}
				got, err := r.ask(r.ctx(), lease.Request{Key: key, Token: "token", TTL: ttl, Steal: row.steal})
				require.NoError(t, err)
				require.Len(t, holders, row.lost+1)
				require.Equal(t, holders[row.got-1], got.Token)
				require.Equal(t, lease.Acquired{Held: true, Token: "token"}, ofLoad(t, r.redis, own, got))

				r.wire.resends = nil
				kept, err := r.Fill(r.ctx(), key, got.Token, []byte("entry"), ttl)
				require.NoError(t, err)
				require.True(t, kept)
				r.requireKey(t, key, "entry", ttl)
			})
		}
	})
}

// The first attempt comes last, when the lease of the second is gone, or has been given back.
func TestFill_NeedsLeaseOfItsOwnAttempt(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		for _, steal := range []bool{false, true} {
			r.reset(t)
			got, err := r.ask(r.ctx(), lease.Request{Key: key, Token: "token", TTL: ttl, Steal: steal})
			require.NoError(t, err)
			require.NoError(t, second(r.Invalidate(r.ctx(), key)))
			late := nextAttempt(t, r.wire.sent[0][0])
			r.put(t, own, late, ttl)

			kept, err := r.Renew(r.ctx(), key, got.Token, 3*ttl)
			require.NoError(t, err)
			require.False(t, kept)
			kept, err = r.Fill(r.ctx(), key, got.Token, []byte("older"), ttl)
			require.NoError(t, err)
			require.False(t, kept)
			r.requireGone(t, key)
			r.requireKey(t, own, late, ttl)
		}
	})
}
