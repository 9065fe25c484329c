package value

import (
	"errors"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
)

// panicker panics in every method that a codec may call, with what it holds.
type panicker struct{ with any }

func (p panicker) EncodeMsgpack(*msgpack.Encoder) error  { panic(p.with) }
func (p *panicker) DecodeMsgpack(*msgpack.Decoder) error { panic(p.with) }
func (p panicker) MarshalJSON() ([]byte, error)          { panic(p.with) }
func (p *panicker) UnmarshalJSON([]byte) error           { panic(p.with) }

func TestCodecError_IsWhatAPanicInATypesOwnMethodBecomes(t *testing.T) {
	for _, c := range []Codec{Msgpack{}, JSON{}} {
		wire, err := Append(nil, c, []int{1})
		require.NoError(t, err)

		for _, with := range []any{io.ErrNoProgress, "a secret", 42} {
			dst, err := Append([]byte("before"), c, []panicker{{with}})
			require.ErrorContains(t, err, "encode: panic: ")
			require.NotContains(t, err.Error(), "secret")
			require.NotContains(t, err.Error(), "42")
			require.Equal(t, "before", string(dst))
			require.Equal(t, with == io.ErrNoProgress, errors.Is(err, io.ErrNoProgress))

			err = Decode(c, wire, &[]*panicker{{with}})
			require.ErrorContains(t, err, "decode: panic: ")
			require.NotContains(t, err.Error(), "secret")
		}
	}
}

func TestCodecError_IsWhatAPanicInACodecBecomes(t *testing.T) {
	c := codecFuncs{} // calls nil functions
	_, err := Append(nil, c, 1)
	require.ErrorContains(t, err, "encode: panic: runtime error: ")

	err = Decode(c, []byte{0xc0}, new(int))
	require.ErrorContains(t, err, "decode: panic: runtime error: ")
	var cause runtime.Error
	require.ErrorAs(t, err, &cause)
}

func TestCodecError_IsWhatAPanicInMsgpackBecomes(t *testing.T) {
	for _, tt := range []struct {
		name string
		wire string
		into any
	}{
		{"a key twice", "\x82\xa1A\x01\xa1A\x01", new(struct{ A any })},
		{"a number for an error", "\x81\xa1E\x01", new(struct{ E error })},
		{"a list for a key", "\x81\x90\x01", new(map[any]any)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.ErrorContains(t, Decode(Msgpack{}, []byte(tt.wire), tt.into), "decode: panic: ")
			requireRoundTrip(t, Msgpack{}, someUser())
		})
	}
}

func TestCodecError_SaysWhatFailedButNotOnWhat(t *testing.T) {
	_, err := Append(nil, Msgpack{}, make(chan int))
	require.EqualError(t, err, "encode: msgpack: Encode(unsupported chan int)")
	_, err = Append(nil, JSON{}, make(chan int))
	require.EqualError(t, err, "encode: json: unsupported type: chan int")

	wire, err := Append(nil, JSON{}, "a secret")
	require.NoError(t, err)
	err = Decode(JSON{}, wire, new(time.Time)) // its error quotes what it could not parse
	require.EqualError(t, err, "decode: *time.ParseError")
	var parse *time.ParseError
	require.ErrorAs(t, err, &parse)

	wire, err = Append(nil, JSON{}, 424242)
	require.NoError(t, err)
	err = Decode(JSON{}, wire, new(int8))
	require.EqualError(t, err, "decode: *json.UnmarshalTypeError")
}
