package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"

	"tenement"
)

// Uids are given out in blocks. The blocks to choose from lie above what systemd takes
// for containers (https://systemd.io/UIDS-GIDS) and below 2^31, from where on some
// programs take a uid for negative. There are 241 of them.
const (
	uidBlock     = 1_000_000
	lowestBlock  = 1_900_000_000
	highestBlock = 2_140_000_000
	blocksToDraw = (highestBlock-lowestBlock)/uidBlock + 1
)

// UID is the number of the user and of the group that the processes of id have to
// themselves: the one on record, or else the next of the block of count that begins
// at first, which then is on record. A count of 0 means 1,000,000. A first of 0 stands for a block that was drawn at
// random when this registry needed one, so that two on one machine hardly ever meet.
//
// No number is given twice, whatever was deleted meanwhile and whichever blocks were
// named before: files of the one who had it may still be there. It is CodeNotFound if
// id is not registered, and CodeConflict when the block is used up.
func (s *Store) UID(ctx context.Context, id tenement.InstanceID, first, count int) (int, error) {
	uid := 0
	err := s.durable(s.inTransaction(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, "SELECT uid FROM instances WHERE service = ? AND name = ?", id.Service, id.Name).Scan(&uid)
		if err != nil || uid > 0 {
			return err
		}
		if uid, err = nextUID(ctx, tx, first, cmp.Or(count, uidBlock)); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "UPDATE instances SET uid = ? WHERE service = ? AND name = ?", uid, id.Service, id.Name)
		return err
	}))
	if err != nil {
		uid = 0
	}
	return uid, s.wrote(ctx, "give a uid to "+id.String(), err)
}

// nextUID takes a number out of the block. What other blocks that overlap with it have
// given counts as given, and so does everything below that.
func nextUID(ctx context.Context, tx *sql.Tx, first, count int) (int, error) {
	if first == 0 {
		var err error
		if first, err = ownBlock(ctx, tx); err != nil {
			return 0, err
		}
	}
	end := first + count
	next := 0
	err := tx.QueryRowContext(ctx, "SELECT coalesce(max(next), 0) FROM uid_blocks WHERE first < ?", end).Scan(&next)
	if err != nil {
		return 0, err
	}
	next = max(next, first)
	if next >= end {
		return 0, &tenement.Error{
			Code: tenement.CodeConflict, Op: "give a uid",
			Err:  fmt.Errorf("all uids from %d to %d were given", first, end-1),
			Hint: "set uid_first in [settings] to the beginning of another block that nobody uses",
		}
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO uid_blocks (first, next) VALUES (?, ?) ON CONFLICT (first) DO UPDATE SET next = excluded.next",
		first, next+1)
	return next, err
}

// ownBlock is the beginning of the block that this registry has drawn.
func ownBlock(ctx context.Context, tx *sql.Tx) (first int, err error) {
	err = tx.QueryRowContext(ctx, "SELECT first FROM uid_blocks WHERE chosen = 1").Scan(&first)
	if !errors.Is(err, sql.ErrNoRows) {
		return first, err
	}
	first = lowestBlock + rand.IntN(blocksToDraw)*uidBlock
	_, err = tx.ExecContext(ctx, "INSERT INTO uid_blocks (first, next, chosen) VALUES (?1, ?1, 1) ON CONFLICT (first) DO UPDATE SET chosen = 1", first)
	return first, err
}
