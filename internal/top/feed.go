package top

import (
	"context"
	"sync"

	tea "charm.land/bubbletea/v2"
)

// feed carries what a stream brings to the model: many items in one message, however
// fast they come, so that drawing is never behind. Of more than it holds the first are
// left out.
type feed[T any] struct {
	mu    sync.Mutex
	items []T
	ready chan struct{} // holds an element when there are items
}

// feedSize bounds what waits to be shown.
const feedSize = 2 * maxLines

// fed is what a feed has brought. A model that has begun with another one drops it.
type fed[T any] struct {
	from  *feed[T]
	items []T
}

// ended is the end of a stream.
type ended struct {
	from any // a feed
	err  error
}

func newFeed[T any]() *feed[T] { return &feed[T]{ready: make(chan struct{}, 1)} }

// put never waits.
func (f *feed[T]) put(item T) {
	f.mu.Lock()
	f.items = append(f.items, item)
	if extra := len(f.items) - feedSize; extra > 0 {
		f.items = append(f.items[:0], f.items[extra:]...)
	}
	f.mu.Unlock()
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

// next waits for items; nil when ctx ends first.
func (f *feed[T]) next(ctx context.Context) tea.Cmd {
	return func() tea.Msg {
		select {
		case <-ctx.Done():
			return nil
		case <-f.ready:
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		items := f.items
		f.items = nil
		return fed[T]{f, items}
	}
}

// follow fills f until the stream ends; stream is of an api.Client.
func (f *feed[T]) follow(stream func(each func(T) error) error) tea.Cmd {
	return func() tea.Msg {
		err := stream(func(item T) error {
			f.put(item)
			return nil
		})
		return ended{f, err}
	}
}
