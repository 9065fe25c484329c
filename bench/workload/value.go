package workload

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Book is a row as a repository would return it: ten fields, among them a time, a
// slice and a map.
type Book struct {
	ID        int64
	Title     string
	Author    string
	ISBN      string
	Pages     int
	Price     float64
	InPrint   bool
	Published time.Time
	Tags      []string
	Stock     map[string]int
}

// Blob is a large value.
type Blob struct {
	ID   int64
	Body []byte
}

const blobSize = 64 << 10

// keysOf are n keys of the peer's own: some peers would not understand the entries
// of others. Their names are of one length, so that none has more to send.
func keysOf(peer string, n int) []string {
	namespace := fmt.Sprintf("%.8s:", strings.ReplaceAll(peer, " ", "")+"--------")
	if strings.Contains(peer, "strong") || strings.Contains(peer, "FD") {
		namespace = namespace[:7] + "2:"
	}
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("%s%07d", namespace, i)
	}
	return keys
}

// idOf is the number at the end of a key.
func idOf(key string) int64 {
	id, _ := strconv.ParseInt(key[len(key)-7:], 10, 64) // keysOf made it
	return id
}

func loadBook(_ context.Context, key string) (Book, error) {
	id := idOf(key)
	return Book{
		ID: id, Title: "The Left Hand of Darkness", Author: "Ursula K. Le Guin", ISBN: "978-0-441-47812-5",
		Pages: 304, Price: 9.99, InPrint: true, Published: time.Date(1969, 3, 1, 0, 0, 0, 0, time.UTC),
		Tags:  []string{"science fiction", "hugo", "nebula"},
		Stock: map[string]int{"berlin": 3, "lisbon": 0, "oslo": 17, "prague": int(id % 10)},
	}, nil
}

func loadBlob(_ context.Context, key string) (Blob, error) {
	b := Blob{ID: idOf(key), Body: make([]byte, blobSize)}
	for i := range b.Body { // not to be compressed: the question is what moving it costs
		b.Body[i] = byte(uint32(i+1) * 2654435761 >> 13)
	}
	return b, nil
}

func (b Book) id() int64 { return b.ID }
func (b Blob) id() int64 { return b.ID }

// value is what the throughput workloads read: it knows which row it is, so that a
// wrong answer does not count as a fast one.
type value interface{ id() int64 }
