import type { ReactNode } from 'react';
import classes from './ui.module.css';

interface Props {
  title?: ReactNode;
  aside?: ReactNode;
  children: ReactNode;
  className?: string | undefined;
  flush?: boolean;
}

/** A raised box with a heading. */
export function Panel({ title, aside, children, className, flush = false }: Props) {
  return (
    <section className={[classes.panel, className].filter(Boolean).join(' ')}>
      {(title !== undefined || aside !== undefined) && (
        <header className={classes.panelHead}>
          <h2>{title}</h2>
          {aside}
        </header>
      )}
      <div className={flush ? classes.flush : classes.panelBody}>{children}</div>
    </section>
  );
}
