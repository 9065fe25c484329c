package flight

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newGroup() *Group[string] {
	return &Group[string]{Go: func(f func()) bool { go f(); return true }}
}

func unexpected(*Flight[string]) { panic("no successor was expected") }

func TestThoseWhoJoinedInTimeShareTheResultAndTheOthersStartOverTogether(t *testing.T) {
	g, ctx := newGroup(), t.Context()
	running, goOn := make(chan *Flight[string]), make(chan struct{})
	early := g.Join(ctx, "k", func(f *Flight[string]) {
		began := f.Mark()
		running <- f
		<-goOn
		f.Finish("old", began, func(f *Flight[string]) { f.Finish("new", f.Mark(), unexpected) })
	})
	<-running
	late, later := g.Join(ctx, "k", unexpected), g.Join(ctx, "k", unexpected)
	close(goOn)
	for seat, want := range map[*Seat[string]]string{early: "old", late: "new", later: "new"} {
		got, err := seat.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	require.True(t, early.First())
	require.NotEqual(t, late.First(), later.First(), "one of them is the first of the second flight")
}

func TestNobodyJoinsAFlightThatHasLeft(t *testing.T) {
	g, ctx := newGroup(), t.Context()
	left, goOn := make(chan struct{}), make(chan struct{})
	first := g.Join(ctx, "k", func(f *Flight[string]) {
		sent, forgotten := f.Leave()
		if forgotten {
			panic("not forgotten yet")
		}
		close(left)
		<-goOn
		g.mu.Lock()
		forgotten = f.forgotten
		g.mu.Unlock()
		if !forgotten {
			panic("forgotten by now")
		}
		f.Finish("first", sent, unexpected)
	})
	<-left
	second := g.Join(ctx, "k", func(f *Flight[string]) { f.Finish("second", Everyone, unexpected) })
	got, err := second.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "second", got)
	fills := g.Forget("k")
	require.Len(t, fills, 1)
	close(goOn)
	<-fills[0]
	got, err = first.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "first", got)
	require.Empty(t, g.Forget("k"))
}

func TestTheLastCallerToLeaveCancelsTheLoad(t *testing.T) {
	g := newGroup()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	course := func(f *Flight[string]) {
		<-f.Context().Done()
		f.Finish("", Everyone, unexpected)
		close(ended)
	}
	one, two := g.Join(ctx, "k", course), g.Join(t.Context(), "k", unexpected)
	cancel()
	_, err := one.Wait(ctx)
	require.ErrorIs(t, err, context.Canceled)
	select {
	case <-ended:
		t.Fatal("another still waits")
	default:
	}
	two.Leave()
	two.Leave() // again is nothing
	<-ended
	third := g.Join(t.Context(), "k", func(f *Flight[string]) { f.Finish("fresh", Everyone, unexpected) })
	got, err := third.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, "fresh", got, "nobody joins a load that was cancelled")
}

func TestAStartedOrAbidedFlightGoesOnWithoutCallers(t *testing.T) {
	g := newGroup()
	goOn, ended := make(chan struct{}), make(chan error, 2)
	course := func(f *Flight[string]) {
		<-goOn
		ended <- f.Context().Err()
		f.Finish("", Everyone, unexpected)
	}
	require.True(t, g.Start(t.Context(), []string{"k"}, func(begun []*Flight[string]) { course(begun[0]) }))
	require.False(t, g.Start(t.Context(), []string{"k"}, noneBegun), "there is one")
	g.Join(t.Context(), "k", unexpected).Leave()
	g.Join(t.Context(), "other", course).Abide()
	close(goOn)
	require.NoError(t, <-ended)
	require.NoError(t, <-ended)
}

func TestAGroupThatTakesNoMoreSaysSo(t *testing.T) {
	g := &Group[string]{Go: func(func()) bool { return false }}
	require.Nil(t, g.Join(t.Context(), "k", unexpected))
	require.Nil(t, g.JoinMany(t.Context(), []string{"k", "l"}, noneBegun))
	require.False(t, g.Start(t.Context(), []string{"k"}, noneBegun))
	require.Empty(t, g.current)
}

func noneBegun([]*Flight[string]) { panic("no flight was to begin") }

func TestManyJoinWhatThereIsAndBeginTheRestTogether(t *testing.T) {
	g := newGroup()
	goOn := make(chan struct{})
	course := func(f *Flight[string]) {
		<-goOn
		f.Finish("old "+f.Key, Everyone, unexpected)
	}
	seat := g.Join(t.Context(), "b", course)
	var began []string
	seats := g.JoinMany(t.Context(), []string{"a", "b", "c", "a"}, func(begun []*Flight[string]) {
		<-goOn
		for _, f := range begun {
			began = append(began, f.Key)
			f.Finish("new "+f.Key, Everyone, unexpected)
		}
	})
	require.Len(t, seats, 4)
	close(goOn)
	for i, want := range []string{"new a", "old b", "new c", "new a"} {
		got, err := seats[i].Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	require.Equal(t, []string{"a", "c"}, began)
	got, err := seat.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, "old b", got)
	require.True(t, seats[0].First())
	require.False(t, seats[3].First())
}
