package services

import "time"

const (
	// ejectAfter is the number of consecutive failures that eject an endpoint.
	ejectAfter = 5
	// ejectFor is the duration of the first ejection; the second one takes twice as long, and so on.
	ejectFor = 5 * time.Second
	// ejectMost bounds the duration of an ejection.
	ejectMost = 5 * time.Minute
	// forgiveAfter is the time that an endpoint must be back for one ejection to be forgotten.
	forgiveAfter = time.Minute
)

// mayEject reports whether another endpoint may be ejected, if out of the ready endpoints are ejected already. At
// most half of them may be, and so never the last one.
func mayEject(ready, out int) bool { return out+1 <= ready/2 }

// eject ejects the member for a time that grows with each ejection, and returns that time.
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
