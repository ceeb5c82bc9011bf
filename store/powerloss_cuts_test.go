//go:build linux && amd64

package store

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"

	"github.com/core-tools/hsu-master/store/statedir"
)

// effort is how many of the possible failures are tried.
type effort struct {
	moments int  // try one of this many moments, besides those right after a mark
	singles bool // try each non-durable act as the only one lost and as the only one kept
	tears   int  // number of places at which each write is torn, per unit; before and after each place
	random  int  // number of random mixtures
}

// cuts calls yield with ways in which the power can fail at moment p.
func (r *recording) cuts(p int, e effort, chance *rand.Rand, yield func(powerCut)) {
	kept, gone := fate{kept: true}, fate{}
	everything := r.pending(p)
	yield(powerCut{p, "all that is not synced is lost", nil, gone})
	if len(everything) == 0 {
		return
	}
	yield(powerCut{p, "all is kept", nil, kept})
	// The lock file is never synced. Its fate matters little, and including it would double all following cases.
	pending := slices.DeleteFunc(slices.Clone(everything), func(a *diskAct) bool {
		return filepath.Base(a.node.label) == statedir.LockName
	})
	if len(pending) > 1 && e.singles {
		for _, a := range pending {
			yield(powerCut{p, "only kept: " + a.what, map[*diskAct]fate{a: kept}, gone})
			yield(powerCut{p, "only lost: " + a.what, map[*diskAct]fate{a: gone}, kept})
		}
	}
	r.journal(p, pending, yield)
	for _, a := range pending {
		for _, unit := range []int64{sectorSize, 4096} {
			for _, others := range []fate{gone, kept} {
				tears(a, unit, e.tears, chance, func(what string, torn func(int64) bool) {
					what = fmt.Sprintf("%s: %s; the rest kept: %t", a.what, what, others.kept)
					yield(powerCut{p, what, map[*diskAct]fate{a: {kept: true, torn: torn}}, others})
				})
			}
		}
	}
	for i := range e.random {
		fates := make(map[*diskAct]fate)
		for _, a := range everything {
			f := fate{kept: chance.IntN(2) == 0}
			if a.kind == kindData && chance.IntN(3) == 0 {
				seed := chance.Uint64()
				f.torn = func(sector int64) bool { return rand.NewPCG(seed, uint64(sector)).Uint64()%2 == 0 }
			}
			fates[a] = f
		}
		yield(powerCut{p, fmt.Sprintf("mixture %d", i), fates, gone})
	}
}

// journal yields the results of a file system with a journal: names are changed in order, while data may be present
// or not.
func (r *recording) journal(p int, pending []*diskAct, yield func(powerCut)) {
	kinds := make(map[actKind]int)
	for _, a := range pending {
		kinds[a.kind]++
	}
	keeps := []func(actKind) bool{func(actKind) bool { return false }}
	if kinds[kindResize]+kinds[kindExtend] > 0 {
		keeps = append(keeps, func(k actKind) bool { return k != kindData })
	}
	if kinds[kindData] > 0 {
		keeps = append(keeps, func(actKind) bool { return true })
	}
	for n := range kinds[kindEntry] + 1 {
		for _, keep := range keeps {
			fates := make(map[*diskAct]fate)
			left := n
			for _, a := range pending {
				switch {
				case a.kind != kindEntry:
					fates[a] = fate{kept: keep(a.kind)}
				case left > 0:
					fates[a] = fate{kept: true}
					left--
				}
			}
			yield(powerCut{
				p, fmt.Sprintf("the first %d names, sizes %t, data %t", n, keep(kindResize), keep(kindData)),
				fates,
				fate{},
			})
		}
	}
}

// tears yields ways to tear a write at multiples of unit.
func tears(a *diskAct, unit int64, most int, chance *rand.Rand, yield func(string, func(int64) bool)) {
	if a.kind != kindData || most == 0 {
		return
	}
	first, last := a.at/unit, (a.at+int64(len(a.data))-1)/unit
	n := int(last - first) // boundaries within the write
	for i := range min(n, most) {
		at := first + 1 + int64(i)
		if n > most {
			at = first + 1 + int64(chance.IntN(n))
		}
		sector := at * unit / sectorSize
		yield(fmt.Sprintf("torn at %d, its beginning kept", at*unit), func(s int64) bool { return s < sector })
		yield(fmt.Sprintf("torn at %d, its end kept", at*unit), func(s int64) bool { return s >= sector })
	}
}
