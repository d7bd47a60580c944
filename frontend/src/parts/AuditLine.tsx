import { useTranslation } from 'react-i18next';
import type { AuditRow } from '../api/types';
import { useFormat } from '../i18n/format';
import classes from './lines.module.css';

/** The name, and what follows it, in "vm 0123456789abc web-1", or else the whole. */
function nameOf(object: string): string {
  return /^[a-z ]+ [0-9a-z]{13} (\S.*)$/.exec(object)?.[1] ?? object;
}

/** One change: when, who, what. */
export function AuditLine({ row }: { row: AuditRow }) {
  const { t } = useTranslation();
  const format = useFormat();
  const user = row.actor.user === 'system' ? t('audit.system') : row.actor.user;
  const failed = row.result !== 'ok' && row.result !== '';
  return (
    <div className={classes.line} data-failed={failed || undefined}>
      <time dateTime={row.time} title={format.dateTime(row.time)}>
        {format.ago(row.time)}
      </time>
      <span className={classes.verb}>{row.verb}</span>
      <b title={row.object}>{nameOf(row.object)}</b>
      <span className={classes.who} title={row.actor.address}>
        {user}
      </span>
      {failed && <span className={classes.failed}>{row.result}</span>}
    </div>
  );
}
