package supervisor

import (
	"context"

	"github.com/core-tools/hsu-master/store/records"
)

// WithOperator is [records.WithOperator].
func WithOperator(ctx context.Context, o records.Operator) context.Context {
	return records.WithOperator(ctx, o)
}

// OperatorOf is [records.OperatorOf].
func OperatorOf(ctx context.Context) *records.Operator { return records.OperatorOf(ctx) }
