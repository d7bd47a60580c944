import classes from './ui.module.css';

export interface Part {
  label: string;
  /** Of the whole, 0 to 1. */
  share: number;
  color: string;
}

/** A bar of parts of a whole. The text says the same as the colours. */
export function Meter({ parts, height = 10 }: { parts: readonly Part[]; height?: number }) {
  const said = parts.map((p) => `${p.label} ${Math.round(p.share * 100)} %`).join(', ');
  return (
    <div className={classes.meter} style={{ height }} role="img" aria-label={said}>
      {parts.map((p) => (
        <span
          key={p.label}
          style={{ width: `${Math.min(1, Math.max(0, p.share)) * 100}%`, background: p.color }}
        />
      ))}
    </div>
  );
}
