"""A fake XNAT on loopback: enough of one that xnatpy, pyxnat and xnatctl list, download and upload against it.

It behaves as ../shared/XNAT.md says of XNAT 1.9 with Container Service 3.7.3; where that is silent, as the three clients need it.

Start it, or ask for the fixture `xnat` (tests/conftest.py), which is a fresh, empty server per test:

    with XnatServer(tmp_path) as xnat:
        xnat.url, xnat.user, xnat.password       # an administrator
        token = xnat.token()                     # alias token: token.alias, token.secret; xnat.token("reader", seconds=1)

Seed it. Files are a folder, a list of paths, or {name: bytes}; they lie under `xnat.archive.folder` as in XNAT's archive:

    project = xnat.project("LIVER")              # owner="somebody"; project.members["reader"] = "collaborator"
    session = project.session("CT01", subject="P01", modality="CT")
    scan = session.scan("2", type="Abdomen", series_description="Abd 3.0", files={"DICOM": folder})
    session.assessor("ROI1", files={"RTSTRUCT": {"roi.dcm": data}})
    project.resource("MEDGAN_checkpoint", {"run-1/state.pt": data})
    xnat.accounts.add("reader", "secret")        # a user who is no administrator

Read what was stored and what was asked:

    session.id, session.uri                      # "XNAT_E00001", "/experiments/XNAT_E00001"; archive_uri has /archive in front
    [r] = [r for r in project.of("resources") if r.label == "MEDGAN_report"]      # or project.find("resources", "MEDGAN_report")
    r.files()                                    # {name: path};  r.read("report.html"); r.fields["format"]; r.folder
    xnat.asked("PUT", "*/files/*")               # requests: .path .query .headers .body .user .status .fault
    xnat.requests                                # all of them, in order

Make it fail; kinds in `web.FAULTS` (expired, login_page, truncated, shortened, reset, reset_midway, reset_after, 502, 504, slow, no_edit_right):

    xnat.faults.add("truncated", "*/files/*", method="GET", times=1)       # times=-1: always; after=2: let two pass; seconds= of "slow"
    xnat.faults.clear()
    xnat.accounts.expire()                       # every session and alias token ends now; passwords still work

Container Service: `xnat.containers` keeps commands (`.commands`), what is enabled (`.site`, `.enabled`) and every `Launch` (`.launches`):

    xnat.containers.runner = run                 # run(launch) -> exit code; at first a runner that does nothing and returns 0
    launch = xnat.containers.launches[-1]
    launch.wait()                                # final status: Complete, Failed, Failed (Upload), Killed
    launch.inputs["target"], launch.mounts["input"], launch.environment["XNAT_HOST"], launch.command, launch.wrapper, launch.history

After exit code 0 the children of each output's path are stored as the handler says; after any other nothing is.
"""

from tests.xnat_server.server import XnatServer

__all__ = ["XnatServer"]
