package api

import (
	"time"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// LatencyAt returns the upper bound of the bucket that holds the quantile, or 0 for the last bucket, which has
// none. ok is false if no call has ended.
func LatencyAt(l *adminpb.Latency, share float64) (bound time.Duration, ok bool) {
	var all, sum uint64
	for _, n := range l.GetCounts() {
		all += n
	}
	if all == 0 {
		return 0, false
	}
	bounds := services.Bounds()
	for i, n := range l.GetCounts() {
		sum += n
		if float64(sum) >= share*float64(all) && i < len(bounds) {
			return bounds[i], true
		}
	}
	return 0, true
}
