package logs

import (
	"context"
	"math"
	"time"
)

// Follower gives lines as they are committed. It holds nothing but its place, so that
// one that is slow only falls behind; what is dropped before it comes there, it misses.
// Its calls come one after the other.
type Follower struct {
	store *Store
	query Query
	after int64 // the last id that was looked at
}

// What a follower is given at once, in lines and in bytes of text.
const (
	pageLines = 500
	pageText  = 1 << 20
)

// Follow follows the lines that match q. With q.After it begins right after that id;
// without, with the last q.Limit lines there are, and if that is 0 with the next one.
// Until and Before are not looked at.
func (s *Store) Follow(q Query) *Follower {
	q.Until, q.Before = time.Time{}, 0
	f := &Follower{store: s, query: q, after: q.After}
	if f.after == 0 && q.Limit <= 0 {
		f.after, _ = s.progress()
	}
	return f
}

// UpTo is the id up to which all lines that match have been returned; 0 before the
// first.
func (f *Follower) UpTo() int64 { return f.after }

// Next returns the next lines, at least one, and waits for them. Every line that
// matches is returned once, in the order of ids. An error is CodeCanceled or
// CodeTimeout when ctx has ended, and Next may be called again; otherwise CodeInternal.
func (f *Follower) Next(ctx context.Context) ([]Line, error) {
	for {
		committed, changed := f.store.progress()
		lines, err := f.next(ctx, committed)
		if err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return nil, failure("follow logs", err)
		}
		if len(lines) > 0 {
			return lines, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, failure("follow logs", ctx.Err())
		}
	}
}

// next is what there is up to the line that was committed last.
func (f *Follower) next(ctx context.Context, committed int64) ([]Line, error) {
	q := f.query
	q.Before = min(committed, math.MaxInt64-1) + 1
	if f.after == 0 { // the first time
		lines, _, err := f.store.query(ctx, q, mostText)
		if err == nil {
			f.after = committed
		}
		return lines, err
	}
	if committed <= f.after {
		return nil, nil
	}
	q.After, q.Limit = f.after, pageLines
	lines, more, err := f.store.query(ctx, q, pageText)
	switch {
	case err != nil:
		return nil, err
	case more:
		f.after = lines[len(lines)-1].ID
	default:
		f.after = committed
	}
	return lines, nil
}
