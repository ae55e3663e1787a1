/** Jobs, whatever they work on. The notation is told in ../notation.ts. */
export const JOB = `
event JOB_STATUS_CHANGE { id: str, status: JobStatus }
command job-pause { id: str }
command job-resume { id: str }
command job-cancel { id: str }
command job-complete { id: str }
command job-dismiss { id: str }
command job-finalize { id: str }
command query-jobs -> [JobInfo]

struct JobInfo { id: str, type: JobType, status: JobStatus, current-progress: int, total-progress: int, error?: str }
enum JobStatus { undefined, created, running, paused, ready, standby, waiting, pending, aborting, concluded, null }
enum JobType { commit, stream, mirror, backup, create, amend, snapshot-load, snapshot-save, snapshot-delete }
`;
