package ports

import (
	"fmt"
	"testing"
)

func TestMastersThatStartAtATimeTryDifferentPortsFirst(t *testing.T) {
	for share := range portShares {
		book := Book{Share: 1 + share}
		for port := 32768; port < 61000; port++ {
			c := book.candidates(port)
			if c[0]/2%portShares != share || c[0]/(2*portShares) != port/(2*portShares) || c[1] != port {
				t.Fatalf("share %d tries %v where the kernel offers %d", share, c, port)
			}
		}
	}
	drawn := map[int]bool{}
	for range 200 { // one share is left out with a probability of 8 * (7/8)^200 = 2e-11
		var book Book
		book.candidates(40000)
		drawn[book.Share] = true
	}
	for share := 1; share <= portShares; share++ {
		if !drawn[share] {
			t.Errorf("no master draws share %d of %v", share, drawn)
		}
	}
}

func TestChosenPortIsHeldForItsWorker(t *testing.T) {
	var book Book
	seen := map[int]string{}
	for i := range 20 {
		worker := fmt.Sprint("worker-", i)
		port, err := book.Choose(worker, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer book.LetGo(worker)
		if seen[port] != "" {
			t.Errorf("port %d is chosen for %s and %s", port, seen[port], worker)
		}
		seen[port] = worker
		if again, err := book.Choose(worker, port); err != nil || again != port {
			t.Errorf("%s prefers %d and gets %d, %v", worker, port, again, err)
		}
	}
}
