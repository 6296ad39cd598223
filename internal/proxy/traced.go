package proxy

import "tenement/internal/tracing"

// goesUnrecorded reports whether the request at hand, which could be answered directly, is
// part of no trace that is recorded; net/http's way is that of all others. If it says
// nothing of a trace, it is made to say so to the tenant.
func (c *frontConn) goesUnrecorded() bool {
	c.parent = c.parent[:0]
	tracer := c.server.handler.config.Tracer
	if tracer == nil {
		return true
	}
	var parents, states int
	var parent []byte
	for _, f := range c.head.fields {
		switch {
		case f.is(tracing.ParentField):
			parent = f.value
			parents++
		case f.is(tracing.StateField):
			states++
		}
	}
	switch {
	case parents == 1:
		return tracing.Declined(c.ctx, string(parent))
	case parents+states > 0:
		return false
	}
	if c.chosen = tracer.Choose(); !c.chosen {
		c.parent = append(tracing.AppendUnrecorded(append(c.parent, "Traceparent: "...)), "\r\n"...)
	}
	return !c.chosen
}
