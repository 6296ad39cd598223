package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tenement"
)

type weightInput struct {
	ID   tenement.InstanceID `path:"instance" doc:"service:name" example:"api:alice"`
	Body WeightRequest
}

func (s *Server) setWeight(ctx context.Context, c *call, in *weightInput) (*none, error) {
	c.detail = fmt.Sprintf("weight %d", in.Body.Weight)
	return &none{}, s.backend.SetWeight(ctx, in.ID, in.Body.Weight)
}

func (s *Server) deploy(ctx context.Context, c *call, in *answer[DeployRequest]) (*none, error) {
	id, err := about(c, in.Body.Process, in.Body.Version)
	if err != nil {
		return nil, err
	}
	c.detail = fmt.Sprintf("weight %d", *in.Body.Weight)
	timeout := time.Duration(in.Body.Timeout * float64(time.Second))
	return &none{}, s.backend.Deploy(ctx, id, *in.Body.Weight, timeout)
}

func (s *Server) route(ctx context.Context, c *call, in *answer[RouteRequest]) (*none, error) {
	from, err := about(c, in.Body.Process, in.Body.From)
	if err != nil {
		return nil, err
	}
	to, err := about(c, in.Body.Process, in.Body.To)
	if err != nil {
		return nil, err
	}
	c.detail = "from " + from.String()
	if from == to {
		return nil, &tenement.Error{
			Code: tenement.CodeInvalid, Op: "route " + from.Service,
			Err: errors.New("from and to are the same instance"),
		}
	}
	return &none{}, s.backend.Route(ctx, from.Service, from.Name, to.Name)
}
