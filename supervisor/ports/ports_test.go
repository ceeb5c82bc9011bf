package ports

import (
	"fmt"
	"testing"
)

func TestMastersThatStartAtATimeChooseAmongDifferentPorts(t *testing.T) {
	const ports = 100
	for share := range 2 {
		book, others := Book{Share: 1 + share}, 0
		for i := range ports {
			worker := fmt.Sprint("worker-", i)
			port, err := book.Choose(worker, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer book.LetGo(worker)
			if port/2%portShares != share {
				others++
			}
		}
		if others > ports/4 { // if the port of the share is taken; without shares, 7 of 8 are of other shares
			t.Errorf("%d of %d ports are of another share than %d", others, ports, share)
		}
	}
	first, second := Book{}, Book{}
	for _, book := range []*Book{&first, &second} {
		if _, err := book.Choose("worker-0", 0); err != nil || book.Share < 1 || book.Share > portShares {
			t.Errorf("share %d, %v, want one from 1 to %d", book.Share, err, portShares)
		}
		book.LetGo("worker-0")
	}
}
