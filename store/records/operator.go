package records

import "context"

type operatorKey struct{}

// WithOperator returns a context for the execution of an operator's command. The events of that execution name the
// operator.
func WithOperator(ctx context.Context, o Operator) context.Context {
	return context.WithValue(ctx, operatorKey{}, &o)
}

// OperatorOf returns the operator whose command is executed with ctx, nil if there is none.
func OperatorOf(ctx context.Context) *Operator {
	o, _ := ctx.Value(operatorKey{}).(*Operator)
	return o
}
