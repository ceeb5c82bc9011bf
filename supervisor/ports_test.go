package supervisor

import (
	"fmt"
	"testing"
)

func TestMastersThatStartAtATimeChooseAmongDifferentPorts(t *testing.T) {
	const ports = 100
	for share := range 2 {
		book, others := portBook{share: 1 + share}, 0
		for i := range ports {
			worker := fmt.Sprint("worker-", i)
			port, err := book.choose(worker, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer book.letGo(worker)
			if port/2%portShares != share {
				others++
			}
		}
		if others > ports/4 { // if the port of the share is taken; without shares, 7 of 8 are of other shares
			t.Errorf("%d of %d ports are of another share than %d", others, ports, share)
		}
	}
	first, second := portBook{}, portBook{}
	for _, book := range []*portBook{&first, &second} {
		if _, err := book.choose("worker-0", 0); err != nil || book.share < 1 || book.share > portShares {
			t.Errorf("share %d, %v, want one from 1 to %d", book.share, err, portShares)
		}
		book.letGo("worker-0")
	}
}
