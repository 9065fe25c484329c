package encrypt_test

import (
	"crypto/rand"
	"fmt"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/encrypt"
)

// The codec is given to readthrough.WithCodec, and a Cache calls it with the Redis key of each entry,
// as is done here by hand.
func ExampleNew() {
	secret := make([]byte, encrypt.SecretSize) // yours comes out of a secret store
	rand.Read(secret)
	key, err := encrypt.NewKey(20261125, secret)
	if err != nil {
		panic(err)
	}
	codec, err := encrypt.New(readthrough.JSON, key)
	if err != nil {
		panic(err)
	}

	stored, err := codec.MarshalKey("shop:user:42", "Ada")
	if err != nil {
		panic(err)
	}
	var name string
	fmt.Println(codec.UnmarshalKey("shop:user:42", stored, &name), name)
	fmt.Println(codec.UnmarshalKey("shop:user:43", stored, &name))
	fmt.Println(key)
	// Output:
	// <nil> Ada
	// encrypt: the value is damaged, forged, or of another Redis key
	// encrypt.Key(20261125)
}

// A key is replaced in three deployments. Each process can read what any other has written.
func ExampleNew_rotation() {
	older := readthrough.Must(encrypt.NewKey(2025, []byte("the secret of last year: 32 byte")))
	newer := readthrough.Must(encrypt.NewKey(2026, []byte("the secret of this year: 32 byte")))

	first := readthrough.Must(encrypt.New(readthrough.JSON, older, newer))  // all can read the new one
	second := readthrough.Must(encrypt.New(readthrough.JSON, newer, older)) // it writes
	third := readthrough.Must(encrypt.New(readthrough.JSON, newer))         // a TTL later: the old one is gone

	stored := readthrough.Must(second.MarshalKey("k", 7))
	var n int
	fmt.Println(first.UnmarshalKey("k", stored, &n), third.UnmarshalKey("k", stored, &n), n)
	// Output: <nil> <nil> 7
}
