package compress_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The documents of the tests and of the table in docs/codecs.md: what services keep in a cache.
// Each is made from a number, so that a fleet of them is as alike and as different as real ones are.

type address struct {
	Kind    string `json:"kind"`
	Street  string `json:"street"`
	City    string `json:"city"`
	Postal  string `json:"postal_code"`
	Country string `json:"country"`
}

type userDoc struct {
	ID        int64             `json:"id"`
	UUID      string            `json:"uuid"`
	Name      string            `json:"name"`
	Email     string            `json:"email"`
	Created   string            `json:"created_at"`
	Roles     []string          `json:"roles"`
	Addresses []address         `json:"addresses"`
	Settings  map[string]string `json:"settings"`
}

type line struct {
	SKU      string  `json:"sku"`
	Title    string  `json:"title"`
	Quantity int     `json:"quantity"`
	Cents    int64   `json:"unit_price_cents"`
	TaxRate  float64 `json:"tax_rate"`
}

type orderDoc struct {
	ID       string  `json:"order_id"`
	Customer int64   `json:"customer_id"`
	Status   string  `json:"status"`
	Currency string  `json:"currency"`
	Placed   string  `json:"placed_at"`
	ShipTo   address `json:"ship_to"`
	Lines    []line  `json:"lines"`
	Total    int64   `json:"total_cents"`
}

type product struct {
	SKU         string   `json:"sku"`
	Title       string   `json:"title"`
	Description string   `json:"description"`
	Cents       int64    `json:"price_cents"`
	Stock       int      `json:"stock"`
	Rating      float64  `json:"rating"`
	Tags        []string `json:"tags"`
	Image       string   `json:"image_url"`
}

// dice draws for the n-th document of a kind; the same n draws the same.
type dice struct{ *rand.Rand }

func diceOf(kind, n uint64) dice { return dice{rand.New(rand.NewPCG(kind, n))} }

func (d dice) pick(of []string) string { return of[d.IntN(len(of))] }

func (d dice) words(n int) string {
	words := make([]string, n)
	for i := range words {
		words[i] = d.pick(lexicon)
	}
	return strings.Join(words, " ")
}

func (d dice) time() string {
	at := time.Date(2026, 1, 1, 0, 0, d.IntN(300*24*3600), d.IntN(1000)*1e6, time.UTC)
	return at.Format(time.RFC3339Nano)
}

func (d dice) hex(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "0123456789abcdef"[d.IntN(16)]
	}
	return string(b)
}

func (d dice) address(kind string) address {
	return address{
		Kind: kind, Street: fmt.Sprintf("%s %d", d.pick(streets), 1+d.IntN(180)), City: d.pick(cities),
		Postal: fmt.Sprintf("%05d", d.IntN(100_000)), Country: d.pick([]string{"DE", "AT", "CH", "NL", "FR"}),
	}
}

func userOf(n int) userDoc {
	d := diceOf(1, uint64(n))
	first, last := d.pick(firstNames), d.pick(lastNames)
	u := userDoc{
		ID: 1_000_000 + int64(n), UUID: d.hex(8) + "-" + d.hex(4) + "-4" + d.hex(3) + "-a" + d.hex(3) + "-" + d.hex(12),
		Name: first + " " + last, Email: strings.ToLower(first+"."+last) + "@" + d.pick([]string{"example.com", "example.org", "mail.example"}),
		Created: d.time(), Roles: []string{"customer"}, Settings: map[string]string{
			"language": d.pick([]string{"de", "en", "fr", "nl"}), "newsletter": d.pick([]string{"weekly", "never"}), "theme": d.pick([]string{"light", "dark"}),
		},
	}
	if d.IntN(4) == 0 {
		u.Roles = append(u.Roles, "reviewer")
	}
	for _, kind := range []string{"billing", "shipping", "work"}[:1+d.IntN(3)] {
		u.Addresses = append(u.Addresses, d.address(kind))
	}
	return u
}

func orderOf(n int) orderDoc {
	d := diceOf(2, uint64(n))
	o := orderDoc{
		ID: fmt.Sprintf("ord_%s", d.hex(16)), Customer: 1_000_000 + d.Int64N(90_000), Currency: "EUR",
		Status: d.pick([]string{"paid", "shipped", "delivered", "returned"}), Placed: d.time(), ShipTo: d.address("shipping"),
	}
	for range 1 + d.IntN(6) {
		l := line{SKU: fmt.Sprintf("%s-%05d", d.pick(departments), d.IntN(100_000)), Title: d.words(3), Quantity: 1 + d.IntN(4), Cents: 99 + d.Int64N(20_000), TaxRate: 0.19}
		o.Lines = append(o.Lines, l)
		o.Total += l.Cents * int64(l.Quantity)
	}
	return o
}

func productsOf(n int) []product {
	d := diceOf(3, uint64(n))
	products := make([]product, 40)
	for i := range products {
		sku := fmt.Sprintf("%s-%05d", d.pick(departments), d.IntN(100_000))
		products[i] = product{
			SKU: sku, Title: d.words(3), Description: d.words(8+d.IntN(20)) + ".", Cents: 99 + d.Int64N(20_000), Stock: d.IntN(500),
			Rating: float64(d.IntN(41)+10) / 10, Tags: []string{d.pick(lexicon), d.pick(lexicon)},
			Image: "https://img.example.com/products/" + strings.ToLower(sku) + "/" + d.hex(12) + ".webp",
		}
	}
	return products
}

// textOf is a text of 100 lines.
func textOf(n int) string {
	d := diceOf(4, uint64(n))
	var b strings.Builder
	for range 100 {
		fmt.Fprintln(&b, d.words(6+d.IntN(7)))
	}
	return b.String()
}

var (
	firstNames  = strings.Fields("Ada Ben Clara David Emma Felix Greta Hannah Ida Jonas Karla Leon Mia Noah Olga Paul Rosa Simon Tilda Viktor")
	lastNames   = strings.Fields("Becker Dietrich Engel Fischer Graf Hartmann Jansen Keller Lehmann Maier Neumann Otto Peters Richter Schubert Thoma Vogel Weber Ziegler")
	streets     = strings.Fields("Ahornweg Bahnhofstrasse Birkenallee Dorfstrasse Eichenweg Gartenstrasse Hauptstrasse Kirchgasse Lindenplatz Marktstrasse Muehlweg Parkring Schulstrasse Seeufer Waldweg")
	cities      = strings.Fields("Amsterdam Basel Berlin Bremen Dresden Graz Hamburg Koeln Leipzig Linz Lyon Mainz Muenchen Paris Rotterdam Salzburg Strasbourg Utrecht Wien Zuerich")
	departments = strings.Fields("BOOK HOME GARD TOYS ELEC FOOD SPRT WEAR")
	lexicon     = strings.Fields(`a about above after all also and any are as at back be because been before being between both box but by
		can case clean close cold colour come comfort cotton could cover dark day deep design dry each early easy edge end even every
		fabric fast few find fine firm first fit flat for form free fresh from full garden give glass good grain great green hand
		hard have heavy high hold home house in into iron is it its just keep kitchen large last leaf light like line little long low
		made make many material may metal more most much natural near never new next no not of off oil old on once one only open
		or order other our out outdoor over own pack paper part place plain plant plate quality quick quiet rain range red ring round
		safe same seal season seat set shade shape short side silver simple small smooth soft solid some soon steel still stone strong
		such summer sun table take than that the them then these they thick thin this time to too top touch two under up use very
		warm wash water way weather well what when where which while white wide wind winter with without wood wool work year you`)
)

var update = flag.Bool("update", false, "write testdata")

// TestDocuments_AreThoseOfTestdata keeps a change of the generator, or of what it draws from, from
// changing the documents behind the published table unseen.
func TestDocuments_AreThoseOfTestdata(t *testing.T) {
	indented := func(v any) []byte {
		b, err := json.MarshalIndent(v, "", "\t")
		require.NoError(t, err)
		return append(b, '\n')
	}
	for name, want := range map[string][]byte{
		"order.json": indented(orderOf(1)), "user.json": indented(userOf(1)), "products.json": indented(productsOf(1)), "text.txt": []byte(textOf(1)),
	} {
		file := filepath.Join("testdata", name)
		if *update {
			require.NoError(t, os.WriteFile(file, want, 0o644))
		}
		got, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got))
	}
}
