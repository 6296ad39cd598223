package api

import (
	"context"
	"errors"
	"slices"
	"strings"

	"tenement"
)

type listInput struct {
	Service string              `query:"service"`
	Name    string              `query:"name"`
	Text    string              `query:"text" maxLength:"127" doc:"anywhere in service:name"`
	State   []string            `query:"state" enum:"asleep,starting,ready,frozen,draining,stopping,backoff,failed,suspended" doc:"one of these, separated by commas"`
	Awake   bool                `query:"awake" doc:"only what is neither asleep nor suspended"`
	After   tenement.InstanceID `query:"after" doc:"only what comes after this id"`
	Limit   int                 `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

var errAwakeOrState = &tenement.Error{Code: tenement.CodeInvalid, Op: "list instances", Err: errors.New("awake and state exclude each other")}

func (in *listInput) query() (ListQuery, error) {
	q := ListQuery{
		Service: in.Service, Name: in.Name, Text: strings.ToLower(in.Text),
		After: in.After, Limit: in.Limit, Count: in.After.IsZero(),
	}
	for _, name := range in.State {
		var state tenement.State
		if err := state.UnmarshalText([]byte(name)); err != nil {
			return q, err
		}
		q.States = append(q.States, state)
	}
	if !in.Awake {
		return q, nil
	}
	if len(q.States) > 0 {
		return q, errAwakeOrState
	}
	q.States = slices.DeleteFunc(tenement.States(), func(s tenement.State) bool { return s == tenement.Asleep || s == tenement.Suspended })
	return q, nil
}

func (s *Server) listInstances(ctx context.Context, c *call, in *listInput) (*answer[InstancePage], error) {
	page := InstancePage{Instances: []Instance{}}
	q, err := in.query()
	if err != nil {
		return nil, err
	}
	if !c.scope.SeesAll() {
		if in.Name != "" && in.Name != c.scope.Tenant {
			return &answer[InstancePage]{page}, nil
		}
		q.Name = c.scope.Tenant
	}
	list, total, err := s.backend.Instances(ctx, q)
	if err != nil {
		return nil, err
	}
	for _, st := range list {
		if c.scope.Sees(st.ID) {
			page.Instances = append(page.Instances, s.show(c, st))
		}
	}
	if q.Count {
		page.Total = &total
	}
	if len(list) == in.Limit {
		page.Next = list[len(list)-1].ID
	}
	return &answer[InstancePage]{page}, nil
}
