package encrypt_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

// FuzzUnmarshalKey gives the codec any bytes: nobody without the key can make a value. No seed is
// sealed by the codec itself, as its Redis key would soon be found.
func FuzzUnmarshalKey(f *testing.F) {
	c := codecOf(f, readthrough.Raw, 0, 1, 0x01010101)
	stranger := codecOf(f, readthrough.Raw, 2)
	f.Add("user:1", seal(f, stranger, "user:1", "value"))
	f.Add("", bytes.Repeat([]byte{1}, 45))
	f.Add("", bytes.Repeat([]byte{2}, 46))
	f.Add("k", []byte{1, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, key string, data []byte) {
		var got []byte
		require.Error(t, c.UnmarshalKey(key, data, &got))
		require.Nil(t, got)
	})
}

// FuzzMarshalKey gives the codec any value and key: it comes back for that key and no other, and not
// if a byte has changed.
func FuzzMarshalKey(f *testing.F) {
	c := codecOf(f, readthrough.Raw, 1, 2)
	f.Add("user:1", "user:2", []byte("value"), uint(0), byte(1))
	f.Add("", "\x01", []byte{}, uint(4), byte(3))
	f.Add("user:1", "user:1\x00", bytes.Repeat([]byte{0}, 100), uint(60), byte(0x80))
	f.Fuzz(func(t *testing.T, key, other string, value []byte, at uint, flip byte) {
		value = append([]byte{}, value...)
		data := seal(t, c, key, value)
		requireOpens(t, c, key, data, value)
		var got []byte
		if other != key {
			require.Error(t, c.UnmarshalKey(other, data, &got))
		}
		if data[at%uint(len(data))] ^= flip; flip != 0 {
			require.Error(t, c.UnmarshalKey(key, data, &got))
		}
		require.Nil(t, got)
	})
}
