//go:build !linux

package safefile

// MaxSocketPath is the capacity of sun_path in bytes without the final NUL: unix(4).
const MaxSocketPath = 103
