package encrypt_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/encrypt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type user struct {
	Name string
	Tags []string
}

var ada = user{"Ada", []string{"x", "y"}}

// keyOf returns a key whose secret is made of its id.
func keyOf(t testing.TB, id uint32) encrypt.Key {
	t.Helper()
	k, err := encrypt.NewKey(id, secretOf(id))
	require.NoError(t, err)
	return k
}

func secretOf(id uint32) []byte { return bytes.Repeat([]byte{byte(id), 0xa5, 0x5a, 0xc3}, 8) }

func codecOf(t testing.TB, inner encrypt.Inner, ids ...uint32) *encrypt.Codec {
	t.Helper()
	keys := make([]encrypt.Key, len(ids))
	for i, id := range ids {
		keys[i] = keyOf(t, id)
	}
	c, err := encrypt.New(inner, keys[0], keys[1:]...)
	require.NoError(t, err)
	return c
}

func seal(t testing.TB, c *encrypt.Codec, key string, v any) []byte {
	t.Helper()
	data, err := c.MarshalKey(key, v)
	require.NoError(t, err)
	return data
}

func requireOpens[V any](t testing.TB, c *encrypt.Codec, key string, data []byte, v V) {
	t.Helper()
	var got V
	require.NoError(t, c.UnmarshalKey(key, data, &got))
	require.Equal(t, v, got)
}

func requireRefuses(t testing.TB, c *encrypt.Codec, key string, data []byte) {
	t.Helper()
	var got user
	require.Error(t, c.UnmarshalKey(key, data, &got))
	require.Zero(t, got)
}

func TestCodec_GivesBackWhatItWasGiven(t *testing.T) {
	for name, inner := range map[string]readthrough.Codec{"json": readthrough.JSON, "msgpack": readthrough.Msgpack} {
		t.Run(name, func(t *testing.T) {
			c := codecOf(t, inner, 1)
			requireOpens(t, c, "user:1", seal(t, c, "user:1", ada), ada)
			requireOpens(t, c, "user:1", seal(t, c, "user:1", (*user)(nil)), (*user)(nil))
			requireOpens(t, c, "n", seal(t, c, "n", 0), 0)
			requireOpens(t, c, "", seal(t, c, "", 7), 7)
		})
	}
	raw := codecOf(t, readthrough.Raw, 1)
	requireOpens(t, raw, "k", seal(t, raw, "k", []byte(nil)), []byte(nil))
	for _, n := range []int{0, 1, 15, 16, 17, 1 << 20} {
		requireOpens(t, raw, "k", seal(t, raw, "k", bytes.Repeat([]byte{7}, n)), bytes.Repeat([]byte{7}, n))
		require.Len(t, seal(t, raw, "k", make([]byte, n)), n+encrypt.Overhead)
	}
}

func TestUnmarshalKey_RefusesAnEntryOfAnotherKey(t *testing.T) {
	c := codecOf(t, readthrough.JSON, 1)
	data := seal(t, c, "user:1", ada)
	requireOpens(t, c, "user:1", data, ada)
	for _, key := range []string{"user:2", "user:", "user:11", "shop:user:1", "", "User:1"} {
		requireRefuses(t, c, key, data)
	}
	// Nothing can be moved between the key and what stands before it in the additional data.
	requireRefuses(t, c, "user:1", seal(t, c, "\x00user:1", ada))
}

func TestUnmarshalKey_RefusesEachFlippedBitAndEachCut(t *testing.T) {
	c := codecOf(t, readthrough.JSON, 1, 0, 3) // ids that one flipped bit leads to
	data := seal(t, c, "user:1", ada)
	for bit := range 8 * len(data) {
		flipped := bytes.Clone(data)
		flipped[bit/8] ^= 1 << (bit % 8)
		requireRefuses(t, c, "user:1", flipped)
	}
	for n := range data {
		requireRefuses(t, c, "user:1", data[:n])
	}
	requireRefuses(t, c, "user:1", append(bytes.Clone(data), 0))
	requireRefuses(t, c, "user:1", nil)
	requireRefuses(t, c, "user:1", seal(t, codecOf(t, readthrough.Raw, 1), "user:1", []byte(nil))[:encrypt.Overhead-1])
}

func TestUnmarshalKey_RefusesAValueThatBecomesNil(t *testing.T) {
	c := codecOf(t, readthrough.Raw, 1)
	empty := seal(t, c, "k", []byte{})
	empty[0] = 2 // the form of nil
	var got []byte
	require.Error(t, c.UnmarshalKey("k", empty, &got))
}

func TestKeys_FirstWritesAndAllRead(t *testing.T) {
	before, during := codecOf(t, readthrough.JSON, 1), codecOf(t, readthrough.JSON, 1, 2)
	then, after := codecOf(t, readthrough.JSON, 2, 1), codecOf(t, readthrough.JSON, 2)
	id := func(data []byte) uint32 { return binary.BigEndian.Uint32(data[1:]) }
	require.EqualValues(t, 1, id(seal(t, during, "k", ada)))
	require.EqualValues(t, 2, id(seal(t, then, "k", ada)))

	requireOpens(t, before, "k", seal(t, during, "k", ada), ada)
	requireOpens(t, during, "k", seal(t, then, "k", ada), ada)
	requireOpens(t, then, "k", seal(t, before, "k", ada), ada)
	requireOpens(t, after, "k", seal(t, then, "k", ada), ada)
	require.EqualError(t, after.UnmarshalKey("k", seal(t, before, "k", ada), new(user)), "encrypt: no key with the id 1")
}

func TestUnmarshalKey_RefusesAnotherSecretUnderTheSameID(t *testing.T) {
	other, err := encrypt.NewKey(1, secretOf(2))
	require.NoError(t, err)
	c, err := encrypt.New(readthrough.JSON, other)
	require.NoError(t, err)
	requireRefuses(t, c, "k", seal(t, codecOf(t, readthrough.JSON, 1), "k", ada))
}

func TestMarshalKey_NeverRepeatsItself(t *testing.T) {
	c := codecOf(t, readthrough.JSON, 1)
	const header, salt, nonce = 5, 12, 24
	seen := make(map[string]bool)
	for range 1000 {
		data := seal(t, c, "k", ada)
		for _, part := range [][]byte{data[header : header+salt], data[header+salt : header+nonce], data[header+nonce:]} {
			require.False(t, seen[string(part)])
			seen[string(part)] = true
		}
	}
}

func TestMarshalKey_LeavesNothingToRead(t *testing.T) {
	long := strings.Repeat("a secret value ", 100)
	data := seal(t, codecOf(t, readthrough.Raw, 1), "user:1", long)
	require.NotContains(t, string(data), "secret")
	require.NotContains(t, string(data), "user:1")
}

func TestCodec_WithoutTheRedisKeyStoresNothing(t *testing.T) {
	var c readthrough.Codec = codecOf(t, readthrough.JSON, 1)
	const want = "encrypt: this codec needs to be told the Redis key, and can only be the outermost codec"
	b, err := c.Marshal(ada)
	require.EqualError(t, err, want)
	require.Nil(t, b)
	require.EqualError(t, c.Unmarshal(nil, new(user)), want)
}

func TestUnmarshalKey_LeavesTheDataAlone(t *testing.T) {
	c := codecOf(t, readthrough.JSON, 1)
	data := seal(t, c, "k", ada)
	given := bytes.Clone(data)
	requireOpens(t, c, "k", given, ada)
	require.Equal(t, data, given)
	requireOpens(t, c, "k", given, ada)
}

// TestUnmarshalKey_ReadsTheGoldenFile keeps the format what it is: a value that was stored by one
// version is read by the next.
func TestUnmarshalKey_ReadsTheGoldenFile(t *testing.T) {
	file, err := os.ReadFile("testdata/value_v1.golden")
	require.NoError(t, err)
	golden := make(map[string][]byte)
	for line := range strings.Lines(string(file)) {
		if name, digits, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && !strings.HasPrefix(name, "#") {
			golden[name], err = hex.DecodeString(digits)
			require.NoError(t, err)
		}
	}
	require.Len(t, golden, 3)
	requireOpens(t, codecOf(t, readthrough.JSON, 7), "shop:user:1", golden["json"], ada)
	requireOpens(t, codecOf(t, readthrough.Raw, 7), "shop:user:1", golden["nil"], []byte(nil))
	requireOpens(t, codecOf(t, readthrough.Raw, 7), "shop:user:1", golden["empty"], []byte{})
}

func TestNew_SaysWhatIsWrong(t *testing.T) {
	_, err := encrypt.New(nil, keyOf(t, 1))
	require.EqualError(t, err, "encrypt: the inner codec is nil")
	_, err = encrypt.New(readthrough.JSON, encrypt.Key{})
	require.EqualError(t, err, "encrypt: a key was not made by NewKey")
	_, err = encrypt.New(readthrough.JSON, keyOf(t, 1), keyOf(t, 2), keyOf(t, 1))
	require.EqualError(t, err, "encrypt: two keys with the id 1")
	for n, want := range map[int]string{
		0: "encrypt: the secret of key 9 has 0 bytes, not 32", 31: "encrypt: the secret of key 9 has 31 bytes, not 32",
		33: "encrypt: the secret of key 9 has 33 bytes, not 32", 32: "encrypt: the secret of key 9 is all zeros",
	} {
		_, err := encrypt.NewKey(9, make([]byte, n))
		require.EqualError(t, err, want)
	}
}

// picky is a codec that keeps integers only.
type picky struct{ readthrough.Codec }

var errPicky = errors.New("integers only")

func (picky) CodecName() string { return "picky" }
func (picky) CheckType(t reflect.Type) error {
	if t.Kind() != reflect.Int {
		return errPicky
	}
	return nil
}

func TestCodec_SpeaksForTheInnerOne(t *testing.T) {
	c := codecOf(t, picky{readthrough.JSON}, 1)
	require.NoError(t, c.CheckType(reflect.TypeFor[int]()))
	require.ErrorIs(t, c.CheckType(reflect.TypeFor[string]()), errPicky)
	require.NoError(t, codecOf(t, struct{ readthrough.Codec }{readthrough.JSON}, 1).CheckType(reflect.TypeFor[string]()))
	require.Equal(t, "encrypt(picky)", c.CodecName())
	require.Equal(t, "encrypt(picky) with encrypt.Key(1)", c.String())
}

// TestKey_IsNeverSeen renders a key, and all that holds it, in every way that a log line or a failed
// test does.
func TestKey_IsNeverSeen(t *testing.T) {
	secret := []byte("0123456789abcdefghijklmnopqrstuv")
	key, err := encrypt.NewKey(42, secret)
	require.NoError(t, err)
	codec, err := encrypt.New(readthrough.JSON, key)
	require.NoError(t, err)
	type config struct {
		Key    encrypt.Key
		hidden encrypt.Key
		Codec  readthrough.Codec
		Keys   map[string]encrypt.Key
	}
	c := config{key, key, codec, map[string]encrypt.Key{"k": key}}

	var out strings.Builder
	for _, v := range []any{key, &key, codec, *codec, c, &c, []any{c, &c}} {
		for _, verb := range strings.Split("%v %+v %#v %s %q %d %x %X % x %t %p %T %e", " ") {
			fmt.Fprintf(&out, verb, v)
		}
		for _, marshal := range []func(any) ([]byte, error){json.Marshal, msgpack.Marshal} {
			b, _ := marshal(v)
			out.Write(b)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("text", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "v", v)
		fmt.Fprint(&out, v)
		// A difference is printed field by field, unexported ones too, whatever the methods.
		require.Equal(&failed{&out}, reflect.Zero(reflect.TypeOf(v)).Interface(), v)
	}
	// What could give the secret away: itself, its AES key schedule, which begins with it, and what is
	// derived from it.
	text := strings.ToLower(out.String())
	for _, form := range []string{
		string(secret[:4]), hex.EncodeToString(secret[:4]), "48 49 50 51", "0x30, 0x31", "30 31 32",
		fmt.Sprintf("%x", binary.LittleEndian.Uint32(secret)), fmt.Sprintf("%x", binary.BigEndian.Uint32(secret)),
		fmt.Sprint(binary.LittleEndian.Uint32(secret)), fmt.Sprint(binary.BigEndian.Uint32(secret)),
		"([]uint8) (len=", "aes.block",
	} {
		require.False(t, strings.Contains(text, strings.ToLower(form)), "%q is seen", form)
	}
	require.True(t, strings.Contains(text, "encrypt.key(42)"))
}

// failed is a test that writes why it failed.
type failed struct{ out *strings.Builder }

func (f *failed) Errorf(format string, args ...any) { fmt.Fprintf(f.out, format, args...) }
func (f *failed) FailNow()                          {}

func TestCodec_IsForManyGoroutines(t *testing.T) {
	c := codecOf(t, readthrough.JSON, 1, 2)
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for n := range 200 {
				key := fmt.Sprint("k:", g, n)
				requireOpens(t, c, key, seal(t, c, key, ada), ada)
			}
		})
	}
	group.Wait()
}

func BenchmarkCodec(b *testing.B) {
	c := codecOf(b, readthrough.Raw, 1)
	for _, size := range []int{64, 1 << 10, 16 << 10, 1 << 20} {
		value := bytes.Repeat([]byte{7}, size)
		data := seal(b, c, "shop:user:1", value)
		b.Run(fmt.Sprintf("marshal/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				seal(b, c, "shop:user:1", value)
			}
		})
		b.Run(fmt.Sprintf("unmarshal/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				var got []byte
				if err := c.UnmarshalKey("shop:user:1", data, &got); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
