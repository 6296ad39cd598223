package store

import (
	"context"

	"tenement"
)

// sums add up what the hours of one group count; as many as [usageColumns] has. Storage is
// what several instances take together.
const sums = "coalesce(sum(awake), 0), coalesce(sum(cpu), 0), coalesce(sum(memory), 0)," +
	" coalesce(sum(requests), 0), coalesce(sum(bytes_in), 0), coalesce(sum(bytes_out), 0), coalesce(sum(storage), 0)"

// perInstance has one row for each instance: its sums, and its storage at the last look. Of
// columns that are not aggregates SQLite gives those of the row that max() has found.
const perInstance = "SELECT service, name, sum(awake) AS awake, sum(cpu) AS cpu, sum(memory) AS memory, sum(requests) AS requests," +
	" sum(bytes_in) AS bytes_in, sum(bytes_out) AS bytes_out, storage, max(iif(storage > 0, hour, 0)) FROM usage WHERE "

// usageSums are what a total is asked by: for each of tenement.UsageBy a query, of which the
// condition stands where %s does not: between its two parts.
var usageSums = map[tenement.UsageBy][2]string{
	tenement.UsageInAll:      {"SELECT 0, '', '', " + sums + " FROM (" + perInstance, " GROUP BY service, name)"},
	tenement.UsageByHour:     {"SELECT hour, '', '', " + sums + " FROM usage WHERE ", " GROUP BY hour ORDER BY hour DESC LIMIT ?"},
	tenement.UsageByInstance: {"SELECT 0, service, name, " + sums + " FROM (" + perInstance, " GROUP BY service, name) GROUP BY service, name ORDER BY sum(memory) DESC, service, name LIMIT ?"},
}

// UsageTotals adds up the hours that q selects: all in one, or, at most limit of them, those
// of each hour, the last ones first, or those of each instance, the largest in memory first.
func (s *Store) UsageTotals(ctx context.Context, q tenement.UsageQuery, by tenement.UsageBy, limit int) ([]tenement.UsageHour, error) {
	condition, args := usageCondition(q)
	parts := usageSums[by]
	if by != tenement.UsageInAll {
		args = append(args, limit)
	}
	const op = "add up what was used"
	rows, err := s.read.QueryContext(ctx, parts[0]+condition+parts[1], args...)
	if err != nil {
		return nil, failure(op, err)
	}
	list, err := collect(rows, scanUsage)
	return list, failure(op, err)
}
