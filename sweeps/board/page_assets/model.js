// The leaderboard's data, prepared for the views. Parts that old versions lack may be missing.
const number = (x) => (typeof x === "number" && Number.isFinite(x) ? x : null);
const list = (x) => (Array.isArray(x) ? x : []);
const entriesOf = (record) => Object.entries(record ?? {});
const average = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const geometric = (values) => Math.exp(average(values.map(Math.log)));
const extent = (values) => [
  values.reduce((a, b) => Math.min(a, b), Infinity),
  values.reduce((a, b) => Math.max(a, b), -Infinity),
];

function speedupOf(raw) {
  const value = number(raw?.value);
  if (value === null || value <= 0) return null;
  const bound = raw.bound === ">" || raw.bound === "<" ? raw.bound : "=";
  const [low, high] = [number(raw.low), number(raw.high)];
  return { value, bound, interval: bound === "=" && low > 0 && high > 0 ? [low, high] : null };
}

// A change per doubling of the steps, with its interval; null if it is unknown.
function trendOf(raw) {
  const [value, low, high] = [number(raw?.value), number(raw?.low), number(raw?.high)];
  return value === null ? null : { value, interval: low === null || high === null ? null : [low, high] };
}

function readBoard(raw) {
  const tasks = list(raw.tasks);
  const shared = new Map(tasks.map((task) => [task.name, list(task.rungs)]));
  const entries = list(raw.entries).map((entry, index) => ({
    ...entry,
    index,
    baseline: entry.optimizer === raw.baseline,
    warnings: list(entry.warnings),
    reaches: list(entry.reaches),
    // The horizons that others than the baseline ran; its own longer ones only measure speed-ups.
    shared: shared.get(entry.task) ?? [],
    rungs: list(entry.rungs)
      .filter((rung) => number(rung.horizon) > 0)
      .sort((a, b) => a.horizon - b.horizon),
  }));
  const names = [
    ...new Set([...tasks.map((task) => task.name), ...entries.map((entry) => entry.task)]),
  ];
  return { ...raw, entries, tasks, names, warnings: list(raw.warnings) };
}

const horizonsOf = (entries) =>
  [...new Set(entries.flatMap((entry) => entry.rungs.map((rung) => rung.horizon)))].sort(
    (a, b) => a - b,
  );
const rungAt = (entry, horizon) => entry.rungs.find((rung) => rung.horizon === horizon);

// The table's view of an entry at one horizon, or overall if `horizon` is null. Returns null if the
// entry has no runs there.
function summary(entry, horizon) {
  const all = entry.shared.length
    ? entry.rungs.filter((rung) => entry.shared.includes(rung.horizon))
    : entry.rungs;
  const rungs = horizon === null ? all : entry.rungs.filter((rung) => rung.horizon === horizon);
  if (!rungs.length) return null;
  const scored = horizon === null ? entry.overall : rungs[0];
  const over = (key, mean) => {
    const values = rungs.map((rung) => number(rung.mean?.[key]));
    return values.includes(null) ? null : mean(values);
  };
  const counts = (key) => extent(rungs.map((rung) => number(rung[key]) ?? 0));
  const [trials] = entry.rungs.map((rung) => number(rung.trials) ?? 0); // at the shortest
  const speedup = speedupOf(horizon === null ? scored : scored.speedup);
  const total = (key) => rungs.reduce((sum, rung) => sum + (number(rung[key]) ?? 0), 0);
  return {
    entry,
    rungs,
    speedup,
    trend: horizon === null ? trendOf(entry.overall?.trend) : null,
    wall_clock: speedup && stepTime(entry) ? speedup.value / stepTime(entry) : null,
    rank: number(scored?.rank),
    probe_loss: over("probe_loss", geometric),
    std: horizon === null ? null : number(rungs[0].std?.probe_loss),
    heldout_kl: over("heldout_kl", geometric),
    agreement: over("agreement", average),
    accuracy: over("accuracy", average),
    step_time: stepTime(entry),
    bytes: number(entry.cost?.state_bytes_per_parameter),
    seeds: counts("seeds"),
    trials: horizon === null ? [trials, trials] : counts("trials"),
    diverged: total("diverged"),
    crashed: total("crashed"),
    verdict: entry.verification?.verdict ?? null,
  };
}

// The time of a whole step, relative to one with the baseline's update; null if unknown.
function stepTime(entry) {
  const [speedup, time] = [number(entry.overall?.value), number(entry.overall?.wall_clock?.task)];
  return speedup > 0 && time > 0 ? speedup / time : null;
}

// Highest speed-up first; a bound counts as its value, and entries without a speed-up come last.
const bySpeedup = (a, b) => (b.speedup?.value ?? 0) - (a.speedup?.value ?? 0);

// The horizon that most entries have; the longest of equals.
function commonHorizon(entries) {
  const counted = horizonsOf(entries).map((horizon) => [
    horizon,
    entries.filter((entry) => rungAt(entry, horizon)).length,
  ]);
  return counted.reduce((best, one) => (one[1] >= best[1] ? one : best), [null, 0])[0];
}
