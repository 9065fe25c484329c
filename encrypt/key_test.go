package encrypt

import (
	"bytes"
	"crypto/cipher"
	"crypto/sha3"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestKey_IsXAES256GCM checks the vectors of https://c2sp.org/XAES-256-GCM. The two keys take both
// ways through the doubling of CMAC's subkey.
func TestKey_IsXAES256GCM(t *testing.T) {
	const nonce, plain = "ABCDEFGHIJKLMNOPQRSTUVWX", "XAES-256-GCM"
	for _, vector := range []struct {
		secret         byte
		aad, encrypted string
	}{
		{1, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{3, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		k, err := NewKey(1, bytes.Repeat([]byte{vector.secret}, SecretSize))
		require.NoError(t, err)
		encrypted, err := hex.DecodeString(vector.encrypted)
		require.NoError(t, err)
		got, err := k.open(append([]byte(nonce), encrypted...), []byte(vector.aad))
		require.NoError(t, err)
		require.Equal(t, plain, string(got))
	}
}

// TestKey_IsXAES256GCMForRandomInput checks the accumulated vector of the same page: 10000 random
// keys, nonces, texts and additional data.
func TestKey_IsXAES256GCMForRandomInput(t *testing.T) {
	source, sum := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	read := func(n int) []byte {
		b := make([]byte, n)
		_, _ = source.Read(b)
		return b
	}
	for range 10_000 {
		secret, nonce := read(SecretSize), read(nonceSize)
		plain := read(int(read(1)[0]))
		aad := read(int(read(1)[0]))
		k, err := NewKey(1, secret)
		require.NoError(t, err)
		encrypted := sealWith(t, k, nonce, plain, aad)
		_, _ = sum.Write(encrypted)

		got, err := k.open(append(nonce, encrypted...), aad)
		require.NoError(t, err)
		require.Equal(t, plain, got)
	}
	digest := make([]byte, 32)
	_, _ = sum.Read(digest)
	require.Equal(t, "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939", hex.EncodeToString(digest))
}

// sealWith encrypts as seal does, with the whole nonce given.
func sealWith(t *testing.T, k Key, nonce, plain, aad []byte) []byte {
	t.Helper()
	block, err := k.derive(nonce[:saltSize])
	require.NoError(t, err)
	aead, err := cipher.NewGCM(block)
	require.NoError(t, err)
	return aead.Seal(nil, nonce[saltSize:], plain, aad)
}
