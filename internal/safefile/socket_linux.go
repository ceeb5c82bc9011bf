package safefile

// MaxSocketPath is the capacity of sun_path in bytes without the final NUL: unix(7).
const MaxSocketPath = 107
