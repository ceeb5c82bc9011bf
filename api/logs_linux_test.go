package api

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/supervisor/logs/offsets"
	"github.com/core-tools/hsu-master/supervisor/logs/tail"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// A client that follows workers whose output is all elsewhere gets the place and an error, and does not wait for lines.
func TestFollowWorkersThatWriteElsewhere(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const elsewhere = "its output goes to the journal"
	told := false
	err := SendLogs(ctx, tail.NewHub(t.TempDir(), &offsets.Tables{}), []worker.Info{{Elsewhere: elsewhere}},
		tail.Query{Lines: -1, Follow: true}, make(chan tail.Source),
		func(r *adminpb.LogsResponse) error {
			told = told || r.GetTexts()[0].GetNotice() == elsewhere
			return nil
		})
	if status.Code(err) != codes.FailedPrecondition || !told {
		t.Errorf("%v, told %t, want FAILED_PRECONDITION", err, told)
	}
}
