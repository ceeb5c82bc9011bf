package supervisor

import (
	"context"

	"github.com/core-tools/hsu-master/store/records"
)

type operatorKey struct{}

// WithOperator returns a context for the execution of an operator's command. The events of what is done with it name
// the operator.
func WithOperator(ctx context.Context, o records.Operator) context.Context {
	return context.WithValue(ctx, operatorKey{}, &o)
}

// OperatorOf returns the operator whose command is executed with ctx, nil if there is none.
func OperatorOf(ctx context.Context) *records.Operator {
	o, _ := ctx.Value(operatorKey{}).(*records.Operator)
	return o
}
