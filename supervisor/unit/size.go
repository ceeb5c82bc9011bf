package unit

import (
	"fmt"
	"strings"
)

// SizeText returns a number of bytes in the largest unit of which there is one, such as 480MiB or 1.5GiB.
func SizeText(bytes int64) string {
	value, suffix := float64(bytes), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value < 1024 {
			break
		}
		value, suffix = value/1024, next
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", value), ".0") + suffix
}
