package fair

import (
	"container/heap"
	"container/list"
)

// Queue holds values that wait for places. Peers take turns, the connections of a peer take turns, and the values
// of one connection stay in order. The zero value is empty. Its owner guards it with a lock. Operations take
// logarithmic time in the number of clients, except [Queue.Next].
type Queue[V any] struct{ root node }

// Waiter is a value in a queue.
type Waiter[V any] struct {
	Value V
	line  *node // nil after it has left the queue
	at    *list.Element
}

// node holds the waiters of the whole queue, of a peer or of a connection.
type node struct {
	parent *node
	key    any
	n      int           // number of waiters
	kids   map[any]*node // peers by Client.Peer, connections by Client.Conn
	sizes  bySize        // the kids as a heap, the one with the most waiters first
	size   int           // index in the parent's sizes
	turns  list.List     // the kids, the next one first; for a connection, its *Waiter values
	at     *list.Element // among the parent's turns
}

// bySize is a heap of nodes.
type bySize []*node

func (s bySize) Len() int           { return len(s) }
func (s bySize) Less(i, j int) bool { return s[i].n > s[j].n }
func (s bySize) Swap(i, j int)      { s[i], s[j] = s[j], s[i]; s[i].size, s[j].size = i, j }
func (s *bySize) Push(x any)        { n := x.(*node); n.size = len(*s); *s = append(*s, n) }
func (s *bySize) Pop() any {
	last := len(*s) - 1
	n := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	return n
}

// kid returns the child with the key and makes it if needed.
func (n *node) kid(key any) *node {
	k := n.kids[key]
	if k == nil {
		if n.kids == nil {
			n.kids = make(map[any]*node)
		}
		k = &node{parent: n, key: key}
		k.at = n.turns.PushBack(k)
		n.kids[key] = k
		heap.Push(&n.sizes, k)
	}
	return k
}

// add changes the number of waiters of n and its parents, and removes nodes without waiters.
func (n *node) add(more int) {
	for ; n != nil; n = n.parent {
		n.n += more
		switch {
		case n.parent == nil:
		case n.n == 0:
			heap.Remove(&n.parent.sizes, n.size)
			n.parent.turns.Remove(n.at)
			delete(n.parent.kids, n.key)
		default:
			heap.Fix(&n.parent.sizes, n.size)
		}
	}
}

// Len returns the number of waiting values.
func (q *Queue[V]) Len() int { return q.root.n }

// Held returns how many values wait for a client.
func (q *Queue[V]) Held(c Client) (h Held) {
	if peer := q.root.kids[c.Peer]; peer != nil {
		h.Peer = peer.n
		if line := peer.kids[c.Conn]; line != nil {
			h.Conn = line.n
		}
	}
	return h
}

// Push adds a value behind the others of the client.
func (q *Queue[V]) Push(c Client, v V) *Waiter[V] {
	w := &Waiter[V]{Value: v, line: q.root.kid(c.Peer).kid(c.Conn)}
	w.at = w.line.turns.PushBack(w)
	w.line.add(1)
	return w
}

// PushFront puts a value returned by [Queue.Next] back, and gives the client its turn back.
func (q *Queue[V]) PushFront(c Client, v V) *Waiter[V] {
	peer := q.root.kid(c.Peer)
	w := &Waiter[V]{Value: v, line: peer.kid(c.Conn)}
	w.at = w.line.turns.PushFront(w)
	w.line.add(1)
	peer.turns.MoveToFront(w.line.at)
	q.root.turns.MoveToFront(peer.at)
	return w
}

// Remove removes a value. It returns false if the value has left the queue already.
func (q *Queue[V]) Remove(w *Waiter[V]) bool {
	line := w.line
	if line == nil {
		return false
	}
	w.line = nil
	line.turns.Remove(w.at)
	line.add(-1)
	return true
}

// Next removes and returns the first value of the client whose turn it is, among the clients that may take a
// place. It calls may once for each client that is denied, and only once for a peer that is denied as a whole.
func (q *Queue[V]) Next(may func(Client) Verdict) (v V, ok bool) {
	for p := q.root.turns.Front(); p != nil; p = p.Next() {
		peer := p.Value.(*node)
		verdict := Granted
		for l := peer.turns.Front(); l != nil && verdict != PeerDenied; l = l.Next() {
			line := l.Value.(*node)
			if verdict = may(Client{Peer: peer.key, Conn: line.key}); verdict != Granted {
				continue
			}
			peer.turns.MoveToBack(l)
			q.root.turns.MoveToBack(p)
			w := line.turns.Front().Value.(*Waiter[V])
			q.Remove(w)
			return w.Value, true
		}
	}
	return v, false
}

// Displace makes room for a client in a full queue. It removes and returns the newest value of the peer with the
// most values, if that peer has more than the client's peer would have with one more. Otherwise it takes the
// newest value of the largest connection of the client's own peer, on the same condition.
func (q *Queue[V]) Displace(c Client) (v V, ok bool) {
	if q.Len() == 0 {
		return v, false
	}
	own := q.Held(c)
	peer := q.root.sizes[0]
	if peer.n <= own.Peer+1 {
		if peer = q.root.kids[c.Peer]; peer == nil || peer.sizes[0].n <= own.Conn+1 {
			return v, false
		}
	}
	w := peer.sizes[0].turns.Back().Value.(*Waiter[V])
	q.Remove(w)
	return w.Value, true
}
