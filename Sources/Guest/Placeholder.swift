internal import Volumes
