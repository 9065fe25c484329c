package workload

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// quick runs a workload for an instant and checks that its section is whole.
func quick(t *testing.T, run func(*Env) (*Section, error)) *Section {
	t.Helper()
	s, err := run(&Env{TB: t, Scale: Quick})
	require.NoError(t, err)
	assert.NotEmpty(t, s.Title)
	assert.NotEmpty(t, s.Text)
	require.NotEmpty(t, s.Tables)
	for _, table := range s.Tables {
		require.NotEmpty(t, table.Rows, table.Caption)
		for _, row := range table.Rows {
			require.Len(t, row, len(table.Columns), table.Caption)
			assert.NotContains(t, strings.Join(row, " "), "NaN")
		}
	}
	for _, target := range s.Targets {
		assert.NotContains(t, target.Measured, "NaN", target.What)
	}
	for _, chart := range s.Charts {
		require.NotEmpty(t, chart.Series)
		for _, series := range chart.Series {
			require.NotEmpty(t, series.Y, series.Name)
		}
	}
	return s
}

// column returns the cells of a column, by what their rows are about.
func column(t *testing.T, table Table, name string) map[string]string {
	t.Helper()
	for i, column := range table.Columns {
		if column == name {
			cells := make(map[string]string)
			for _, row := range table.Rows {
				cells[row[0]] = row[i]
			}
			return cells
		}
	}
	require.Fail(t, "no such column", name)
	return nil
}

func TestHit(t *testing.T) {
	s := quick(t, Hit)
	require.Len(t, s.Tables, 5)
	for _, table := range s.Tables {
		assert.Len(t, table.Rows, len(readers), table.Caption)
	}
	assert.Equal(t, []string{"1", "16", "128", "1024"}, s.Charts[0].Groups)
	assert.Len(t, s.Targets, 9)
}

func TestLarge(t *testing.T) { assert.Len(t, quick(t, Large).Tables, 2) }

func TestMissLoadsWithEachOperation(t *testing.T) {
	for _, table := range quick(t, Miss).Tables {
		for name, loads := range column(t, table, "loads") {
			assert.NotEqual(t, "0", loads, "%s, %s", table.Caption, name)
		}
	}
}

func TestStampedeAnswersEverybody(t *testing.T) {
	table := quick(t, Stampede).Tables[0]
	for name, failed := range column(t, table, "callers failed") {
		assert.Equal(t, "0", failed, name)
	}
	loads := column(t, table, "loads, most")
	assert.NotEqual(t, "1", loads["GET+msgpack"], "if nothing collapses, and that is one load, there was no crowd")
}

func TestHungServerHoldsUpThoseWhoWaitForIt(t *testing.T) {
	table := quick(t, Hung).Tables[0]
	for name, failed := range column(t, table, "calls failed") {
		assert.Equal(t, "0", failed, name)
	}
	assert.Equal(t, strconv.Itoa(hungCallers), column(t, table, "calls")["GET+msgpack"], "one call each, until the server is back")
	assert.NotEqual(t, strconv.Itoa(hungCallers), column(t, table, "calls")["readthrough"])
}

func TestResident(t *testing.T) {
	assert.Len(t, quick(t, Resident).Tables[0].Rows, len(Quick.Resident))
}

func TestFreshnessSeesEachCall(t *testing.T) {
	s := quick(t, Freshness)
	want := int(Quick.TTLs[0]) * Quick.Lifetimes / int(pace)
	for mode, calls := range column(t, s.Tables[0], "calls") {
		assert.Equal(t, strconv.Itoa(want), calls, mode)
	}
	for mode, failed := range column(t, s.Tables[0], "calls failed") {
		assert.Equal(t, "0", failed, mode)
	}
	for mode, loads := range column(t, s.Tables[0], "loads per TTL") {
		assert.NotEqual(t, "0.00", loads, mode)
	}
}

func TestBatchReadsAllKeysColdOnce(t *testing.T) {
	s := quick(t, Batch)
	require.Len(t, s.Tables, 3)
	for name, loads := range column(t, s.Tables[1], "keys loaded") {
		assert.Equal(t, strconv.Itoa(Quick.BatchKeys), loads, name)
	}
	for name, trips := range column(t, s.Tables[1], "round trips") {
		assert.NotEqual(t, "0", trips, name)
	}
}

func TestProfile(t *testing.T) {
	table := quick(t, Profile).Tables[0]
	total := table.Rows[len(table.Rows)-1]
	assert.Equal(t, "all", total[0])
	assert.NotEqual(t, "0.00", total[1], "no sample was taken")
	assert.NotEqual(t, "0.00", column(t, table, "GET+msgpack")["system calls, network"], "nothing was sent")
}

// The values were computed by hand: load + load*exp(a)*E1(a), with a = calls*exp(-ttl/load).
func TestLoadsByTheFormulaOfXFetch(t *testing.T) {
	const load = 200 * time.Millisecond
	assert.InDelta(t, 3.37, xfetchLoads(time.Second, load), 0.01)
	assert.InDelta(t, 1.14, xfetchLoads(8*time.Second, load), 0.01)
	assert.InDelta(t, 1.175, xfetchLead(load).Seconds(), 0.001)
}
