package api

import (
	"context"

	"google.golang.org/grpc/metadata"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
)

// CommandKey is the metadata key of the command line that a call to the admin service executes, for the history.
const CommandKey = "hsu-command"

// MaxCommand bounds the recorded command, in bytes.
const MaxCommand = 256

// withOperator returns the context of a call of that user, for [supervisor.OperatorOf].
func withOperator(ctx context.Context, uid uint32) context.Context {
	o := records.Operator{UID: uid}
	if given := metadata.ValueFromIncomingContext(ctx, CommandKey); len(given) > 0 {
		o.Command = given[0][:min(len(given[0]), MaxCommand)]
	}
	return supervisor.WithOperator(ctx, o)
}

func operatorMessage(o *records.Operator) *adminpb.Operator {
	if o == nil {
		return nil
	}
	return &adminpb.Operator{Uid: o.UID, Command: sendable(o.Command)}
}

// OperatorOf returns the operator of a message, nil if there is none.
func OperatorOf(m *adminpb.Operator) *records.Operator {
	if m == nil {
		return nil
	}
	return &records.Operator{UID: m.GetUid(), Command: m.GetCommand()}
}
