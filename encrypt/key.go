package encrypt

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
)

const (
	// SecretSize is the size of a key's secret in bytes.
	SecretSize = 32

	saltSize  = 12 // the first half of the nonce, from which the subkey is derived
	nonceSize = 24
	tagSize   = 16
)

// Key is a key with an id, which is stored with each value so that the key is found again. No verb of
// fmt, no encoder and no reflection gets at its secret: a closure holds it.
type Key struct {
	id     uint32
	derive func(salt []byte) (cipher.Block, error)
}

// NewKey returns the key with the given id and secret. The secret is 32 random bytes, such as
// crypto/rand or a key management service makes, and not a password; NewKey keeps a copy of what it
// needs, not the slice. An id stands for one secret for ever: a date, say, or a version number.
func NewKey(id uint32, secret []byte) (Key, error) {
	if len(secret) != SecretSize {
		return Key{}, fmt.Errorf("encrypt: the secret of key %d has %d bytes, not %d", id, len(secret), SecretSize)
	}
	if subtle.ConstantTimeCompare(secret, make([]byte, SecretSize)) == 1 {
		return Key{}, fmt.Errorf("encrypt: the secret of key %d is all zeros", id)
	}
	derive, err := deriver(secret)
	return Key{id, derive}, err
}

// ID returns the id of the key.
func (k Key) ID() uint32 { return k.id }

// String returns the id of the key, and nothing of its secret.
func (k Key) String() string { return fmt.Sprintf("encrypt.Key(%d)", k.id) }

// GoString returns what String does, for %#v.
func (k Key) GoString() string { return k.String() }

// MarshalText returns what String does, for encoding/json and its kin.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// seal appends nonce, ciphertext and tag of plain to dst. The nonce is random. NIST SP 800-38D,
// section 8.3, allows one key of AES-GCM no more than 2^32 random nonces of 96 bits; the nonces of
// XAES-256-GCM have 192 bits, and 2^80 of them keep the risk of a collision at 2^-32. So nobody has
// to count.
func (k Key) seal(dst, plain, additional []byte) ([]byte, error) {
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails
	aead, err := k.aead(salt)
	if err != nil {
		return nil, err
	}
	return aead.Seal(append(dst, salt...), nil, plain, additional), nil
}

// open returns what seal made sealed of. The error says nothing but that it did not.
func (k Key) open(sealed, additional []byte) ([]byte, error) {
	aead, err := k.aead(sealed[:saltSize])
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(make([]byte, 0, len(sealed)-nonceSize-tagSize), nil, sealed[saltSize:], additional)
	if err != nil {
		return nil, errors.New("encrypt: the value is damaged, forged, or of another Redis key")
	}
	return plain, nil
}

// aead returns the AES-256-GCM for the nonces that begin with salt. It draws the rest of the nonce
// itself, and has it before the ciphertext.
func (k Key) aead(salt []byte) (cipher.AEAD, error) {
	block, err := k.derive(salt)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// deriver returns the key derivation of XAES-256-GCM (https://c2sp.org/XAES-256-GCM): NIST SP
// 800-108r1 in counter mode over AES-CMAC, which for its fixed sizes is two blocks of AES for each
// subkey. The cipher it returns has the subkey for the nonces that begin with salt.
func deriver(secret []byte) (func(salt []byte) (cipher.Block, error), error) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	mask := cmacSubkey(block)
	return func(salt []byte) (cipher.Block, error) {
		var subkey [SecretSize]byte
		for i := range byte(2) {
			m := subkey[i*aes.BlockSize:][:aes.BlockSize]
			m[1], m[2] = i+1, 'X' // counter and label
			copy(m[4:], salt)
			subtle.XORBytes(m, m, mask)
			block.Encrypt(m, m)
		}
		return aes.NewCipher(subkey[:])
	}, nil
}

// cmacSubkey returns the subkey K1 of AES-CMAC (NIST SP 800-38B, section 6.1): the encrypted zero
// block, doubled in GF(2^128).
func cmacSubkey(block cipher.Block) []byte {
	k := make([]byte, aes.BlockSize)
	block.Encrypt(k, k)
	carry := byte(0)
	for i := len(k) - 1; i >= 0; i-- {
		k[i], carry = k[i]<<1|carry, k[i]>>7
	}
	k[len(k)-1] ^= carry * 0x87
	return k
}
