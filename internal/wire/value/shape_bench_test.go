package value

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/wire/wellformed"
)

// BenchmarkCheck measures what it costs to check a struct beside its type, and without it.
func BenchmarkCheck(b *testing.B) {
	wire, err := Append(nil, Msgpack{}, someBenchRecord)
	require.NoError(b, err)
	shape := TypeOf(reflect.TypeFor[benchRecord]()).shape
	for name, check := range map[string]func([]byte) error{"shape": shape.check, "wellformed": wellformed.Check} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(wire)))
			b.ReportAllocs()
			for b.Loop() {
				if err := check(wire); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCheckJSON measures what it costs to check a struct beside its type, and to decode it.
func BenchmarkCheckJSON(b *testing.B) {
	wire, err := JSON{}.Marshal(someBenchRecord)
	require.NoError(b, err)
	shape := TypeOf(reflect.TypeFor[benchRecord]()).json
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			if err := shape.check(wire); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			var v benchRecord
			if err := json.Unmarshal(wire, &v); err != nil {
				b.Fatal(err)
			}
		}
	})
}
