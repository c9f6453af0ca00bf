"""A small project on the fake XNAT, and the ways in: a site's credentials, a connection that does not wait between attempts."""

from __future__ import annotations

from medgan.errors import MedganError
from plugin.credentials import Site
from plugin.rest import Connection
from tests.xnat_server import XnatServer
from tests.xnat_server.archive import Node

# Labels may name a patient: no message and no log may hold one.
LABEL = "Erika_CT_2019"
QUICK = (0.0, 0.0, 0.0)

CT = {f"{number}.dcm": bytes([number]) * 1000 for number in range(1, 6)} | {"deeper/6 b.dcm": b"six"}


def site_of(xnat: XnatServer, user: str = "", password: str = "") -> Site:
    return Site(host=xnat.url, user=user or xnat.user, password=password or xnat.password)


def connect(xnat: XnatServer, error: type[MedganError], **who: str) -> Connection:
    return Connection(site_of(xnat, **who), error, pauses=QUICK)


def liver(xnat: XnatServer) -> Node:
    """Two sessions: one with two scans, outlines, a resource of its own and what an earlier run left; one with a scan."""
    project = xnat.project("LIVER")
    session = project.session(LABEL, subject="P01", modality="CT")
    session.scan("2", type="T1 Abdomen", files={"DICOM": CT, "SNAPSHOTS": {"t.gif": b"gif"}, "MEDGAN_SYNTHETIC": {"run-1/s.png": b"png"}})
    session.scan("3-MR1", type="Scout", files={"DICOM": {"s.dcm": b"scout"}, "secondary": {"c.dcm": b"capture"}})
    session.assessor("ROI_1", files={"RTSTRUCT": {"roi.dcm": b"roi"}, "AIM": {"roi.xml": b"<a/>"}})
    session.assessor("ROI_2", files={"SEG": {"seg.dcm": b"seg"}})
    session.resource("NIFTI", {"mask.nii.gz": b"mask"})
    session.resource("MEDGAN_REPORT", {"run-1/report.html": b"<html>"})
    project.session("Hans_MR_2020", subject="P02", modality="MR").scan("1", type="T1 Brain", files={"NIFTI": {"t1.nii.gz": b"t1"}})
    return project
