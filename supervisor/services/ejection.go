package services

import "time"

const (
	// ejectAfter is how many failures in a row eject an endpoint.
	ejectAfter = 5
	// ejectFor is for how long, the first time; the second time twice that, and so on.
	ejectFor = 5 * time.Second
	// ejectMost bounds it.
	ejectMost = 5 * time.Minute
	// forgiveAfter is how long an endpoint must be back for one ejection to be forgotten.
	forgiveAfter = time.Minute
)

// mayEject tells whether one more of ready endpoints may go where out of them have: never more than half, and so never
// the last.
func mayEject(ready, out int) bool { return out+1 <= ready/2 }

// eject takes the member out for a time that grows each time, and returns that time.
func (m *standing) eject(now time.Duration) time.Duration {
	if m.ejections > 0 {
		forgiven := int((now - m.ejectedUntil) / forgiveAfter)
		m.ejections = max(0, m.ejections-forgiven)
	}
	m.ejections++
	m.failures = 0
	d := min(time.Duration(m.ejections)*ejectFor, ejectMost)
	m.ejectedUntil = now + d
	return d
}
