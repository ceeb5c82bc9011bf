package peers

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestBucket(t *testing.T) {
	rate := rate{burst: 10, every: time.Second}
	var b bucket
	now := time.Hour
	b.take(now, 10, rate, time.Minute)
	if b.overdrawn(now, rate) {
		t.Error("a bucket of ten that ten were taken from is overdrawn")
	}
	b.take(now, 1, rate, time.Minute)
	if !b.overdrawn(now, rate) || b.overdrawn(now+time.Second, rate) {
		t.Error("a bucket that eleven were taken from is overdrawn for a second")
	}
	b.take(now, 1000, rate, time.Minute)
	if !b.overdrawn(now+time.Minute-1, rate) || b.overdrawn(now+time.Minute, rate) {
		t.Error("a bucket is overdrawn for longer than the longest debt")
	}
	b.give(now, 70, rate)
	if !b.full(now) {
		t.Error("a bucket that all was given back to is not full")
	}
	b.give(now, 70, rate)
	b.take(now, 11, rate, time.Minute)
	if !b.overdrawn(now, rate) {
		t.Error("a bucket has saved up more than its size")
	}
}

// overdraw resets as many streams as a peer may, and one more.
func overdraw(m *Account, now time.Duration) {
	for range peerResets.burst + 1 {
		m.Reset(now, 0)
	}
}

func TestResetsAreOfThePeer(t *testing.T) {
	var table Table
	now := time.Minute
	for range 4 { // a new connection each
		m := table.Join(now, ID{user: 1})
		for range peerResets.burst/4 + 1 {
			if !m.Reset(now, 0) {
				t.Fatal("a connection has to end for what its peer may do")
			}
		}
		m.Leave()
	}
	table.Sweep(now)
	again, other := table.Join(now, ID{user: 1}), table.Join(now, ID{user: 2})
	if again.MayBegin(now) {
		t.Error("a new connection of the peer may begin a call at once")
	}
	if !other.MayBegin(now) {
		t.Error("a connection of another peer may not")
	}
	for range connResets.burst {
		if !again.Reset(now, 0) {
			t.Fatal("the connection has to end too soon")
		}
	}
	if again.Reset(now, 0) {
		t.Error("a connection may reset streams for ever")
	}
	if later := now + mostDebt; !again.MayBegin(later) {
		t.Error("the peer's calls still wait when its debt is paid")
	}
	again.Leave()
	table.Sweep(now + mostDebt + peerResets.whole())
	if len(table.debtors) != 0 || len(table.peers) != 1 {
		t.Errorf("%d debtors and %d peers are known, want 0 and 1", len(table.debtors), len(table.peers))
	}
}

func TestResetOfAnOldStreamIsFree(t *testing.T) {
	var table Table
	m := table.Join(0, ID{})
	for range 10 * peerResets.burst {
		if !m.Reset(time.Hour, resetAge) {
			t.Fatal("the connection has to end")
		}
	}
	if !m.MayBegin(time.Hour) {
		t.Error("calls wait")
	}
}

// Refused calls slow their peer down, and end no connection.
func TestRefusedCallsAreNotFree(t *testing.T) {
	var table Table
	m := table.Join(0, ID{})
	for range peerResets.burst + 10*connResets.burst {
		m.Refused(0)
	}
	if m.MayBegin(0) {
		t.Error("the peer may begin a call at once")
	}
	if !m.Reset(0, 0) {
		t.Error("the connection has to end at its first reset")
	}
	if !m.MayBegin(mostDebt) {
		t.Error("calls still wait when the debt is paid")
	}
}

// A client that completes calls is not delayed by another client of the same peer that resets its calls.
func TestCompletedCallsAreTrusted(t *testing.T) {
	var table Table
	bad, good := table.Join(0, ID{}), table.Join(0, ID{})
	good.Completed(0)
	overdraw(bad, 0)
	bad.Reset(0, 0)
	for range trustPerCall {
		if !good.MayBegin(0) {
			t.Fatal("a call waits")
		}
	}
	if good.MayBegin(0) {
		t.Error("a call begins that was not earned")
	}
	if bad.MayBegin(0) {
		t.Error("a call of the one that resets begins")
	}
	for range 2 * mostTrust {
		good.Completed(0)
	}
	if got := good.trust.Load(); got > mostTrust+trustPerCall {
		t.Errorf("a connection has saved up %d calls", got)
	}
}

// Connections of an overdrawn peer take turns, however many calls each has.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var table Table
		accounts := make([]*Account, 3)
		counts := make([]int, len(accounts))
		done := make(chan struct{})
		for i := range accounts {
			accounts[i] = table.Join(0, ID{})
			go func() {
				for {
					accounts[i].Wait()
					select {
					case <-done:
						return
					default:
						counts[i]++
					}
				}
			}()
		}
		time.Sleep(300*turnEvery + turnEvery/2)
		synctest.Wait()
		for i, n := range counts {
			if n != 100 {
				t.Errorf("connection %d has begun %d of 300 calls", i, n)
			}
		}
		close(done)
		for _, m := range accounts {
			m.Interrupt()
		}
		synctest.Wait()
		if w := accounts[0].Peer().turns.waiting; len(w) != 0 {
			t.Errorf("%d connections wait after the end", len(w))
		}
	})
}

func TestWorkIsInherited(t *testing.T) {
	var table Table
	m := table.Join(0, ID{})
	frames := 0
	for m.Work(0, Frame) {
		frames++
	}
	if frames != connWork.burst/Frame {
		t.Errorf("%d frames are allowed, want %d", frames, connWork.burst/Frame)
	}
	m.Leave()
	m, frames = table.Join(0, ID{}), 0
	for m.Work(0, Frame) {
		frames++
	}
	if frames != newWork/Frame {
		t.Errorf("%d frames are allowed on the next connection, want %d", frames, newWork/Frame)
	}
	m.Earn(0, connWork.burst)
	if !m.Work(0, Frame) {
		t.Error("what was earned does not count")
	}
}

func TestDebtorsAreBounded(t *testing.T) {
	var table Table
	for i := range mostDebtors + 100 {
		m := table.Join(0, ID{user: int64(i)})
		m.Reset(0, 0)
		m.Leave()
	}
	if len(table.peers) > mostDebtors || len(table.debtors) > mostDebtors {
		t.Errorf("%d peers are remembered", len(table.peers))
	}
}

func TestReportsAreRare(t *testing.T) {
	var p Peer
	for _, c := range []struct {
		at   time.Duration
		want bool
	}{{0, true}, {time.Second, false}, {reportEvery, true}, {reportEvery + 1, false}} {
		if got := p.Report(c.at); got != c.want {
			t.Errorf("Report(%v) = %v", c.at, got)
		}
	}
}
