package logs

import "time"

// Policy is how a log is rotated. The zero value stands for [DefaultPolicy].
type Policy struct {
	// MaxSize is the size at which the log is rotated; 0 means the default. A longer line stays whole up to
	// [LongestLine].
	MaxSize int64
	// MaxAge is the age at which a rotated file is removed; 0 means never.
	MaxAge time.Duration
	// Keep is the number of rotated files to keep; 0 means the default, [KeepNone] none.
	Keep int
	// Compress compresses the rotated files.
	Compress bool
}

// LongestLine is the size from which a line is cut, so that the log of a worker that writes no newlines is rotated too.
const LongestLine = 16 << 20

// KeepNone is the value of [Policy].Keep that drops the old lines.
const KeepNone = -1

// DefaultPolicy returns the policy of a unit that sets none.
func DefaultPolicy() Policy { return Policy{MaxSize: 10 << 20, Keep: 5, Compress: true} }

// WithDefaults returns the policy with every zero size and number replaced.
func (p Policy) WithDefaults() Policy {
	if p == (Policy{}) {
		return DefaultPolicy()
	}
	if p.MaxSize == 0 {
		p.MaxSize = DefaultPolicy().MaxSize
	}
	if p.Keep == 0 {
		p.Keep = DefaultPolicy().Keep
	}
	return p
}
