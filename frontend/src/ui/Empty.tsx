import type { ReactNode } from 'react';
import classes from './ui.module.css';

interface Props {
  icon: ReactNode;
  title: string;
  text?: string | undefined;
  action?: ReactNode;
}

/** What stands where there is nothing yet. */
export function Empty({ icon, title, text, action }: Props) {
  return (
    <div className={classes.empty}>
      <div className={classes.emptyIcon}>{icon}</div>
      <strong>{title}</strong>
      {text !== undefined && <p>{text}</p>}
      {action}
    </div>
  );
}
