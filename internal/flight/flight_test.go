package flight

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// join is Join of a caller who expects to begin a flight, or not to.
func join(t *testing.T, g *Group[string], key string, begins bool) (*Seat[string], *Flight[string]) {
	t.Helper()
	seat, begun := g.Join(t.Context(), key)
	require.Equal(t, begins, begun != nil)
	return seat, begun
}

// requireResult says what a seat must have been given by now.
func requireResult(t *testing.T, seat *Seat[string], want string) {
	t.Helper()
	select {
	case got := <-seat.Result():
		require.Equal(t, want, got)
	default:
		t.Fatalf("no result, where %q is wanted", want)
	}
}

func TestFinish_SharesResultWithThoseInTimeAndCarriesOthersOver(t *testing.T) {
	g := new(Group[string])
	early, f := join(t, g, "k", true)
	began := f.Mark()
	late, _ := join(t, g, "k", false)
	later, _ := join(t, g, "k", false)
	next := f.Finish("old", began, began)
	require.NotNil(t, next, "those who were late start over")
	require.Nil(t, next.Finish("new", next.Mark(), Everyone))
	requireResult(t, early, "old")
	requireResult(t, late, "new")
	requireResult(t, later, "new")
	require.True(t, early.First())
	require.NotEqual(t, late.First(), later.First(), "one of them is the first of the second flight")
	require.Empty(t, g.running)
}

func TestFinish_CarriesOverIntoFlightThatThereIs(t *testing.T) {
	g := new(Group[string])
	_, f := join(t, g, "k", true)
	began := f.Mark()
	late, _ := join(t, g, "k", false)
	g.Forget("k")
	_, other := join(t, g, "k", true)
	require.Nil(t, f.Finish("old", began, began))
	require.Nil(t, other.Finish("other", Everyone, Everyone))
	requireResult(t, late, "other")
}

func TestLeave_KeepsNewcomersAway(t *testing.T) {
	g := new(Group[string])
	first, f := join(t, g, "k", true)
	sent := f.Leave()
	second, other := join(t, g, "k", true)
	require.Nil(t, other.Finish("second", Everyone, Everyone))
	requireResult(t, second, "second")
	require.Nil(t, f.Finish("first", sent, sent))
	requireResult(t, first, "first")
}

func TestJoinFresh_SharesLoadsThatBeginLater(t *testing.T) {
	g := new(Group[string])
	reader, content := join(t, g, "k", true)
	one, forced := g.JoinFresh(t.Context(), "k")
	require.NotNil(t, forced, "a flight that is content with a stored value does not do")
	require.True(t, forced.Forced())
	require.False(t, content.Forced())
	two, begun := g.JoinFresh(t.Context(), "k")
	require.Nil(t, begun)
	began := forced.Mark()
	get, _ := join(t, g, "k", false)
	late, begun := g.JoinFresh(t.Context(), "k")
	require.Nil(t, begun)
	sent := forced.Leave()

	next := forced.Finish("loaded", sent, began)
	requireResult(t, one, "loaded")
	requireResult(t, two, "loaded")
	requireResult(t, get, "loaded")
	require.NotNil(t, next)
	require.True(t, next.Forced(), "it is for a caller who wants a load")
	require.Nil(t, next.Finish("again", Everyone, Everyone))
	requireResult(t, late, "again")
	require.Nil(t, content.Finish("stored", Everyone, 0))
	requireResult(t, reader, "stored")
}

func TestFinish_GivesFreshSeatsFlightsThatLoad(t *testing.T) {
	g := new(Group[string])
	_, f := g.JoinFresh(t.Context(), "k")
	began := f.Mark()
	late, _ := g.JoinFresh(t.Context(), "k")
	g.Forget("k")
	_, content := join(t, g, "k", true)
	next := f.Finish("old", Everyone, began)
	require.NotNil(t, next, "the flight that there is is content with a stored value")
	require.True(t, next.Forced())
	require.Nil(t, content.Finish("stored", Everyone, Everyone))
	require.Nil(t, next.Finish("new", Everyone, Everyone))
	requireResult(t, late, "new")
}

func TestSeat_LastToLeaveCancelsLoad(t *testing.T) {
	g := new(Group[string])
	ctx, cancel := context.WithCancel(t.Context())
	one, f := join(t, g, "k", true)
	two, _ := join(t, g, "k", false)
	cancel()
	_, err := one.Wait(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, f.Context().Err(), "another still waits")
	two.Leave()
	two.Leave() // again is nothing
	require.ErrorIs(t, f.Context().Err(), context.Canceled)
	third, fresh := join(t, g, "k", true) // nobody joins a load that was cancelled
	require.Nil(t, f.Finish("", Everyone, Everyone))
	require.Nil(t, fresh.Finish("fresh", Everyone, Everyone))
	got, err := third.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, "fresh", got)
}

func TestStart_GoesOnWithoutCallersUntilStop(t *testing.T) {
	g := new(Group[string])
	begun := g.Start(t.Context(), "k", "l")
	require.Len(t, begun, 2)
	require.Empty(t, g.Start(t.Context(), "k"), "there is one")
	visitor, _ := join(t, g, "k", false)
	visitor.Leave()
	impatient, other := join(t, g, "other", true)
	impatient.LeaveRunning()
	stays, awaited := join(t, g, "awaited", true)
	flights := append(begun, other, awaited)
	for _, f := range flights {
		require.NoError(t, f.Context().Err(), f.Key)
	}
	g.Forget("l") // is stopped all the same
	g.Stop()
	for _, f := range flights[:3] {
		require.Error(t, f.Context().Err(), f.Key)
	}
	require.NoError(t, awaited.Context().Err(), "somebody waits for it")
	stays.LeaveRunning()
	require.Error(t, awaited.Context().Err(), "until then")
}

func TestJoinMany_JoinsWhatThereIsAndBeginsRestTogether(t *testing.T) {
	g := new(Group[string])
	seat, b := join(t, g, "b", true)
	seats, begun := g.JoinMany(t.Context(), []string{"a", "b", "c", "a"})
	require.Len(t, seats, 4)
	require.Len(t, begun, 2)
	require.Equal(t, "a", begun[0].Key)
	require.Equal(t, "c", begun[1].Key)
	for _, f := range begun {
		require.Nil(t, f.Finish("new "+f.Key, Everyone, Everyone))
	}
	require.Nil(t, b.Finish("old b", Everyone, Everyone))
	for i, want := range []string{"new a", "old b", "new c", "new a"} {
		requireResult(t, seats[i], want)
	}
	requireResult(t, seat, "old b")
	require.True(t, seats[0].First())
	require.False(t, seats[3].First())
}

func TestAnswer_IsForThoseWhoCameInTimeAndComesOnce(t *testing.T) {
	g := new(Group[string])
	early, f := join(t, g, "k", true)
	began := f.Mark()
	late, _ := join(t, g, "k", false)
	sent := f.Leave()
	f.Answer("early", began)
	requireResult(t, early, "early")
	f.Answer("again", began)
	require.NoError(t, f.Context().Err(), "it goes on")
	early.Leave() // is nothing
	require.Nil(t, f.Finish("stored", sent, began))
	requireResult(t, late, "stored")
	f.Answer("too late", Everyone)
	require.Empty(t, early.Result())
	require.Empty(t, late.Result())
}
