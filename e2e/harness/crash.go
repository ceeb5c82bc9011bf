//go:build e2e && linux

package harness

import (
	"fmt"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// Moments returns the moments around the first n passes of the points.
func Moments(n int, points ...crashpoint.Point) []string {
	var moments []string
	for _, p := range points {
		for i := range n {
			moments = append(moments, fmt.Sprintf("%s:%d", p.Before(), i+1), fmt.Sprintf("%s:%d", p.After(), i+1))
		}
	}
	return moments
}
