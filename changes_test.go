package readthrough_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

// TestChanges_OfCodecAreMisses has each codec read what each other has stored.
func TestChanges_OfCodecAreMisses(t *testing.T) {
	codecs := map[string]readthrough.Codec{
		"msgpack": readthrough.Msgpack, "json": readthrough.JSON, "raw": readthrough.Raw,
		"own": namedCodec{readthrough.JSON, "own"}, "other": namedCodec{readthrough.JSON, "other"}, "unnamed": plainCodec{readthrough.JSON},
	}
	for writer, w := range codecs {
		for reader, r := range codecs {
			t.Run(writer+" to "+reader, func(t *testing.T) {
				requireChange(t, writer == reader, "hello", readthrough.WithCodec(w), readthrough.WithCodec(r))
				requireChange(t, writer == reader, []byte("hello"), readthrough.WithCodec(w), readthrough.WithCodec(r))
			})
		}
	}
}

// namedCodec is a codec of the user's that says what it is called.
type namedCodec struct {
	readthrough.Codec
	name string
}

func (c namedCodec) CodecName() string { return c.name }

// plainCodec is a codec of the user's.
type plainCodec struct{ readthrough.Codec }

func TestWithVersion_MakesEntriesOfAnotherVersionMisses(t *testing.T) {
	for writer := range uint8(3) {
		for reader := range uint8(3) {
			requireChange(t, writer == reader, "v", readthrough.WithVersion(writer), readthrough.WithVersion(reader))
		}
	}
	cache, server := newCache(t, readthrough.WithVersion(1))
	require.NoError(t, readthrough.Set(t.Context(), cache, "raw", 5, time.Hour))
	other, err := readthrough.NewCache(client(t, server))
	require.NoError(t, err)
	defer other.Close()
	_, err = readthrough.Get[int](t.Context(), other, "raw")
	require.ErrorIs(t, err, readthrough.ErrMiss)
	require.Zero(t, other.Stats().Corrupt)
	require.EqualValues(t, 5, readthrough.Must(readthrough.Get[int](t.Context(), cache, "raw")))
}

// requireChange stores v with one option, and reads it with another.
func requireChange[V any](t *testing.T, hit bool, v V, before, after readthrough.Option) {
	t.Helper()
	cache, server := newCache(t)
	old := wrapper(t, cache, constant(v), before)
	_, err := old.Get(t.Context(), 1)
	require.NoError(t, err)
	other, err := readthrough.NewCache(client(t, server))
	require.NoError(t, err)
	defer other.Close()
	rt := wrapper(t, other, constant(v), after)
	got, info, err := rt.GetInfo(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, v, got)
	require.Equal(t, hit, info.Source == readthrough.SourceHit)
	_, info, err = rt.GetInfo(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, readthrough.SourceHit, info.Source, "it was overwritten")
}

func TestNotFound_OfAnotherListIsMiss(t *testing.T) {
	never, gone, third := errors.New("never was"), errors.New("gone"), errors.New("third")
	lists := map[string][]error{
		"two": {never, gone}, "one more in front": {third, never, gone}, "other order": {gone, never}, "one more": {never, gone, third},
		"one": {gone}, "another type": {never, fmt.Errorf("gone%w", errEmpty)},
	}
	for writer, before := range lists {
		for reader, after := range lists {
			t.Run(writer+" to "+reader, func(t *testing.T) {
				cache, server := newCache(t)
				old := wrapper(t, cache, func(context.Context, int) (int, error) { return 0, gone }, readthrough.WithNotFound(time.Hour, before...))
				_, err := old.Get(t.Context(), 1)
				require.Equal(t, gone, err)
				other, err := readthrough.NewCache(client(t, server))
				require.NoError(t, err)
				defer other.Close()
				rt := wrapper(t, other, constant(5), readthrough.WithNotFound(time.Hour, after...))
				_, err = rt.Peek(t.Context(), 1)
				if writer == reader && writer != "another type" {
					require.Equal(t, gone, err)
				} else {
					require.ErrorIs(t, err, readthrough.ErrMiss)
				}
				require.Zero(t, rt.Stats().Corrupt)
			})
		}
	}
}

var errEmpty = errors.New("")

// TestGet_ReadsEntriesOfVersion1 holds which of the entries of the format before are read: those of
// which only the codec at hand can be the writer.
func TestGet_ReadsEntriesOfVersion1(t *testing.T) {
	const header = "\x92\xd8\x52\x01\x00\x01\x8b\xcf\xe5\x68\x00\xff\xff\xff\xff\xff\xff\x00\x2a"
	const negative = "\x92\xd8\x52\x01\x01\x01\x8b\xcf\xe5\x68\x00\xff\xff\xff\xff\xff\xff\x00\x2a\xc0"
	errNone := errors.New("none")
	cache, server := newCache(t)
	peek := func(name, stored string, opts ...readthrough.Option) (any, error) {
		require.NoError(t, server.Set(name+":1", stored))
		rt := readthrough.Must(readthrough.New(cache, name, constant("loaded"), readthrough.Int, append(opts, readthrough.WithNotFound(time.Hour, errNone))...))
		return rt.Peek(t.Context(), 1)
	}
	v, err := peek("msgpack", header+"\xa5hello")
	require.NoError(t, err)
	require.Equal(t, "hello", v)
	for name, c := range map[string]readthrough.Codec{"a": readthrough.Msgpack, "b": readthrough.JSON, "c": readthrough.Raw} {
		_, err = peek(name, header+"\xc4\x07"+`"hello"`, readthrough.WithCodec(c))
		require.ErrorIs(t, err, readthrough.ErrMiss, "it may be of any codec but Msgpack")
	}
	_, err = peek("negative", negative)
	require.ErrorIs(t, err, readthrough.ErrMiss, "it does not say of which list it is")
	_, err = peek("version", header+"\xa5hello", readthrough.WithVersion(1))
	require.ErrorIs(t, err, readthrough.ErrMiss)
}
